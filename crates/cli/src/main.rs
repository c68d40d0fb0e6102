//! `signalbox`: what an application developer and an operator type.
//!
//! Each subcommand is a file. Errors end here: one sentence on stderr, and exit code 2 when the command line or an address is to
//! blame, 1 otherwise.

mod canary;
mod dev;
mod drain;
mod exit;
mod load;
mod nodes;
mod orchestrators;
mod rooms;
mod route;
mod stdout;
mod table;
mod token;
mod when;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Real-time voice and video rooms: a signaling tier that says where, a media tier that carries.
///
/// Without a subcommand it is `signalbox dev`: gateway, orchestrator and media node in one process.
#[derive(Debug, Parser)]
#[command(
    name = "signalbox",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  \
        signalbox                                              everything in one process, on loopback\n  \
        signalbox --listen 127.0.0.1:8080                      the same on another port\n  \
        signalbox token --room daily --identity ann --ttl 2h   a token to join a room with\n  \
        signalbox load --video-publishers 1 --subscribers 50   what a server makes of fifty viewers\n  \
        signalbox nodes                                        the media nodes of a cluster\n  \
        signalbox rooms why daily                              why a room is where it is\n  \
        signalbox route --path /rtc --cookie group=canary      which of a gateway's rules a request meets\n  \
        signalbox canary --share 10%                           try a new version on every tenth user\n  \
        signalbox drain 5f0c --wait                            move a node's rooms to others"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    dev: dev::Dev,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Dev),
    Token(Box<token::Token>),
    Load(Box<load::Load>),
    Nodes(nodes::Nodes),
    Rooms(rooms::Rooms),
    Route(route::Route),
    Canary(canary::Canary),
    Drain(drain::Drain),
    Undrain(drain::Undrain),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // A quiet start prints what the developer needs and nothing else, so information is off unless asked for.
    // The stack of the load tool warns of what other servers negotiate.
    signalbox_telemetry::log("warn,str0m=error");

    let result = match cli.command.unwrap_or(Command::Dev(cli.dev)) {
        Command::Dev(dev) => dev.run().await,
        Command::Token(token) => token.run(),
        Command::Load(load) => load.run().await,
        Command::Nodes(nodes) => nodes.run().await,
        Command::Rooms(rooms) => rooms.run().await,
        Command::Route(route) => route.run().await,
        Command::Canary(canary) => canary.run().await,
        Command::Drain(drain) => drain.run().await,
        Command::Undrain(undrain) => undrain.run().await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("signalbox: {error:#}");
            exit::code(&error)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_subcommand_is_dev() {
        let cli = Cli::try_parse_from(["signalbox", "--listen", "127.0.0.1:0"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.dev.listen.port(), 0);
    }
}
