//! The cases: sections of RFC 9113 unless they are attacks with a number of their own.

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE, REQUEST, RST_STREAM,
    SETTINGS, WHOLE, WINDOW_UPDATE, field, fields, frame, request,
};

/// What the gateway has to say: one of these reasons (section 7).
#[derive(Debug, PartialEq, Eq)]
pub enum Expected {
    /// The connection is refused.
    Connection(&'static [u32]),
    /// The stream is refused, or the connection.
    Stream(&'static [u32]),
    /// It is answered.
    Answer,
}

/// Something to send.
pub struct Case {
    pub section: &'static str,
    pub what: &'static str,
    pub expected: Expected,
    /// The connection's preface comes first.
    pub begins_well: bool,
    pub bytes: fn() -> Vec<u8>,
}

const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
const SIZE: u32 = 6;
const REFUSED: u32 = 7;
const COMPRESSION: u32 = 9;
const CALM: u32 = 11;

const fn connection(section: &'static str, what: &'static str, codes: &'static [u32], bytes: fn() -> Vec<u8>) -> Case {
    let expected = Expected::Connection(codes);
    Case {
        section,
        what,
        expected,
        begins_well: true,
        bytes,
    }
}

const fn stream(section: &'static str, what: &'static str, codes: &'static [u32], bytes: fn() -> Vec<u8>) -> Case {
    let expected = Expected::Stream(codes);
    Case {
        section,
        what,
        expected,
        begins_well: true,
        bytes,
    }
}

const fn answered(section: &'static str, what: &'static str, bytes: fn() -> Vec<u8>) -> Case {
    Case {
        section,
        what,
        expected: Expected::Answer,
        begins_well: true,
        bytes,
    }
}

/// A request whose fields are these alone.
fn only(names: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &fields(names))
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(
        SETTINGS,
        0,
        0,
        &[id.to_be_bytes().as_slice(), &value.to_be_bytes()].concat(),
    )
}

/// A request with a body to come, of this length by its header.
fn announced(length: &str) -> Vec<u8> {
    let post = [("content-length", length)];
    frame(HEADERS, END_HEADERS, 1, &[fields(&REQUEST), fields(&post)].concat())
}

fn repeated(count: u32, one: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(one).collect()
}

pub const CASES: &[Case] = &[
    Case {
        section: "3.4",
        what: "another preface",
        expected: Expected::Connection(&[PROTOCOL]),
        begins_well: false,
        bytes: || b"INVALID CONNECTION PREFACE\r\n\r\n".to_vec(),
    },
    answered("5.1", "a request", || request(1, &[])),
    answered("4.1", "a frame of an unknown kind", || {
        [frame(0x16, 0, 0, &[0; 8]), request(1, &[])].concat()
    }),
    answered("6.5.2", "an unknown setting", || {
        [setting(0xff, 1), request(1, &[])].concat()
    }),
    answered("6.1", "padding", || {
        let padded = [&[3], fields(&REQUEST).as_slice(), &[0; 3]].concat();
        frame(HEADERS, WHOLE | PADDED, 1, &padded)
    }),
    connection("4.2", "a frame that is too long", &[SIZE], || {
        frame(DATA, 0, 0, &[0; 16_385])
    }),
    connection("4.3", "fields that are none", &[COMPRESSION], || {
        frame(HEADERS, WHOLE, 1, &[0xff; 8])
    }),
    connection("4.3", "a table that is too large", &[COMPRESSION], || {
        frame(
            HEADERS,
            WHOLE,
            1,
            &[&[0x3f, 0xff, 0xff, 0x7f], fields(&REQUEST).as_slice()].concat(),
        )
    }),
    connection("4.3", "another frame between fields", &[PROTOCOL], || {
        [
            frame(HEADERS, END_STREAM, 1, &fields(&REQUEST)),
            frame(PRIORITY, 0, 1, &[0; 5]),
        ]
        .concat()
    }),
    connection("4.3", "another stream's fields between fields", &[PROTOCOL], || {
        [frame(HEADERS, END_STREAM, 1, &fields(&REQUEST)), request(3, &[])].concat()
    }),
    connection("5.1", "data before a request", &[PROTOCOL], || {
        frame(DATA, END_STREAM, 1, b"x")
    }),
    connection("5.1", "a reset before a request", &[PROTOCOL], || {
        frame(RST_STREAM, 0, 1, &[0; 4])
    }),
    connection("5.1", "room before a request", &[PROTOCOL], || {
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9])
    }),
    connection("5.1", "the rest of fields that have not begun", &[PROTOCOL], || {
        frame(CONTINUATION, 4, 1, &[])
    }),
    stream("5.1", "data after the end", &[CLOSED], || {
        [request(1, &[]), frame(DATA, END_STREAM, 1, b"x")].concat()
    }),
    connection("5.1.1", "a stream of the server's numbers", &[PROTOCOL], || {
        request(2, &[])
    }),
    connection(
        "5.1.1",
        "a stream whose number was passed over",
        &[PROTOCOL, CLOSED],
        || [request(5, &[]), request(3, &[])].concat(),
    ),
    stream(
        "5.1.2",
        "more streams than there may be",
        &[REFUSED, PROTOCOL, CALM],
        || repeated(150, |number| frame(HEADERS, END_HEADERS, number * 2 + 1, &join())),
    ),
    connection("6.1", "data on no stream", &[PROTOCOL], || {
        frame(DATA, END_STREAM, 0, b"x")
    }),
    connection("6.1", "padding that is longer than its frame", &[PROTOCOL], || {
        [announced("1"), frame(DATA, END_STREAM | PADDED, 1, &[9, 0])].concat()
    }),
    connection("6.2", "a request on no stream", &[PROTOCOL], || request(0, &[])),
    connection("6.3", "a priority on no stream", &[PROTOCOL], || {
        frame(PRIORITY, 0, 0, &[0; 5])
    }),
    stream("6.3", "a priority that is too short", &[SIZE], || {
        frame(PRIORITY, 0, 1, &[0; 4])
    }),
    connection("6.4", "a reset of no stream", &[PROTOCOL], || {
        frame(RST_STREAM, 0, 0, &[0; 4])
    }),
    connection("6.4", "a reset that is too short", &[SIZE], || {
        [announced("1"), frame(RST_STREAM, 0, 1, &[0; 3])].concat()
    }),
    connection("6.5", "settings of a stream", &[PROTOCOL], || {
        frame(SETTINGS, 0, 1, &[])
    }),
    connection("6.5", "settings of a length that they cannot have", &[SIZE], || {
        frame(SETTINGS, 0, 0, &[0; 5])
    }),
    connection("6.5", "an acknowledgement with settings", &[SIZE], || {
        frame(SETTINGS, 1, 0, &[0; 6])
    }),
    connection("6.5.2", "a push that is neither on nor off", &[PROTOCOL], || {
        setting(2, 2)
    }),
    connection("6.5.2", "a window that is too large", &[FLOW], || setting(4, 1 << 31)),
    connection("6.5.2", "frames that are too small", &[PROTOCOL], || setting(5, 16_383)),
    connection("6.5.2", "frames that are too large", &[PROTOCOL], || {
        setting(5, 1 << 24)
    }),
    connection("6.6", "a push of the client's", &[PROTOCOL], || {
        frame(
            PUSH_PROMISE,
            END_HEADERS,
            1,
            &[&[0, 0, 0, 2], fields(&REQUEST).as_slice()].concat(),
        )
    }),
    connection("6.7", "a ping of a stream", &[PROTOCOL], || frame(PING, 0, 1, &[0; 8])),
    connection("6.7", "a ping that is too short", &[SIZE], || {
        frame(PING, 0, 0, &[0; 7])
    }),
    connection("6.8", "a farewell of a stream", &[PROTOCOL], || frame(7, 0, 1, &[0; 8])),
    connection("6.9", "no room at all", &[PROTOCOL], || {
        frame(WINDOW_UPDATE, 0, 0, &[0; 4])
    }),
    stream("6.9", "no room at all for a stream", &[PROTOCOL], || {
        [announced("1"), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat()
    }),
    connection("6.9", "room that is too short", &[SIZE], || {
        frame(WINDOW_UPDATE, 0, 0, &[0; 3])
    }),
    connection("6.9.1", "more room than there can be", &[FLOW], || {
        repeated(2, |_| frame(WINDOW_UPDATE, 0, 0, &i32::MAX.to_be_bytes()))
    }),
    stream("6.9.1", "more room for a stream than there can be", &[FLOW], || {
        [
            announced("1"),
            repeated(2, |_| frame(WINDOW_UPDATE, 0, 1, &i32::MAX.to_be_bytes())),
        ]
        .concat()
    }),
    stream("8.1.1", "more of a body than was announced", &[PROTOCOL], || {
        [announced("1"), frame(DATA, END_STREAM, 1, b"four")].concat()
    }),
    stream("8.1.1", "less of a body than was announced", &[PROTOCOL], || {
        [announced("9"), frame(DATA, END_STREAM, 1, b"four")].concat()
    }),
    stream("8.2.1", "a name in capitals", &[PROTOCOL], || {
        request(1, &[("X-Test", "a")])
    }),
    stream("8.2.1", "a value with the end of a line", &[PROTOCOL], || {
        request(1, &[("x-test", "a\r\nb: c")])
    }),
    stream("8.2.2", "a field of the connection", &[PROTOCOL], || {
        request(1, &[("connection", "close")])
    }),
    stream("8.2.2", "a coding of the connection", &[PROTOCOL], || {
        request(1, &[("transfer-encoding", "chunked")])
    }),
    stream("8.2.2", "trailers that are none", &[PROTOCOL], || {
        request(1, &[("te", "gzip")])
    }),
    stream("8.3", "an unknown field of the request line", &[PROTOCOL], || {
        request(1, &[(":test", "a")])
    }),
    stream("8.3", "a field of the response line", &[PROTOCOL], || {
        request(1, &[(":status", "200")])
    }),
    stream(
        "8.3",
        "a field of the request line that comes late",
        &[PROTOCOL],
        || {
            only(&[
                (":method", "GET"),
                (":scheme", "https"),
                ("x", "y"),
                (":path", "/livez"),
            ])
        },
    ),
    stream("8.3.1", "no method", &[PROTOCOL], || only(&REQUEST[1..])),
    stream("8.3.1", "no path", &[PROTOCOL], || {
        only(&[REQUEST[0], REQUEST[1], REQUEST[3]])
    }),
    stream("8.3.1", "an empty path", &[PROTOCOL], || {
        only(&[REQUEST[0], REQUEST[1], (":path", "")])
    }),
    stream("8.3.1", "two methods", &[PROTOCOL], || {
        only(&[REQUEST[0], REQUEST[0], REQUEST[1], REQUEST[2]])
    }),
    stream("8.3.1", "two paths", &[PROTOCOL], || {
        only(&[REQUEST[0], REQUEST[1], REQUEST[2], REQUEST[2]])
    }),
    connection("CVE-2023-44487", "requests that are reset at once", &[CALM], || {
        repeated(2_000, |number| {
            let id = number * 2 + 1;
            [request(id, &[]), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
        })
    }),
    connection(
        "CVE-2025-8671",
        "requests that the server has to reset",
        &[CALM, FLOW],
        || {
            repeated(2_000, |number| {
                let id = number * 2 + 1;
                let head = frame(HEADERS, END_HEADERS, id, &join());
                [head, frame(WINDOW_UPDATE, 0, id, &[0; 4])].concat()
            })
        },
    ),
    stream(
        "CVE-2024-27316",
        "fields without an end",
        &[CALM, PROTOCOL, COMPRESSION],
        || {
            let head = frame(HEADERS, END_STREAM, 1, &fields(&REQUEST));
            let more = repeated(150, |_| field("x-test", &"x".repeat(80)));
            [head, repeated(2_000, |_| frame(CONTINUATION, 0, 1, &more))].concat()
        },
    ),
    stream(
        "CVE-2016-6581",
        "a small head that means a large one",
        &[PROTOCOL, CALM],
        || {
            // A field of 4,000 bytes goes into the table (RFC 7541 section 6.2.1), and is then named again and again.
            let long = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e], [b'y'; 4_000].as_slice()].concat();
            let first = frame(HEADERS, WHOLE, 1, &[fields(&REQUEST), long].concat());
            let bomb = frame(HEADERS, WHOLE, 3, &[fields(&REQUEST), vec![0xbe; 16_000]].concat());
            [first, bomb].concat()
        },
    ),
];

/// A join whose body does not come.
fn join() -> Vec<u8> {
    fields(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/v1/rooms/daily/join"),
        (":authority", "localhost"),
    ])
}
