//go:build tools

// Package tools names what is built.
package tools

import _ "github.com/letsencrypt/pebble/v2/cmd/pebble"
