//! Clients' connections that stay: WebSockets and streams of server-sent events, by dialect.

use std::fmt::Write;

use crate::dialect::Dialect;
use crate::metrics::Gauge;

/// How such a connection carries its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// Server-sent events.
    ServerSent,
}

impl Transport {
    const ALL: [Self; 2] = [Self::WebSocket, Self::ServerSent];

    fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::ServerSent => "server_sent",
        }
    }
}

/// How many are open.
#[derive(Debug, Default)]
pub struct Sockets([[Gauge; Transport::ALL.len()]; Dialect::ALL.len()]);

impl Sockets {
    /// `n` more, or fewer when it is negative.
    pub(crate) fn add(&self, dialect: Dialect, transport: Transport, n: i64) {
        let of_dialect = self.0.get(dialect as usize);
        if let Some(gauge) = of_dialect.and_then(|of| of.get(transport as usize)) {
            gauge.add(n);
        }
    }

    /// The Prometheus text.
    pub(crate) fn render(&self, text: &mut String) {
        text.push_str("# HELP signalbox_gateway_sockets Client WebSockets and event streams open.\n# TYPE signalbox_gateway_sockets gauge\n");
        for (dialect, of_dialect) in Dialect::ALL.iter().zip(&self.0) {
            for (transport, gauge) in Transport::ALL.iter().zip(of_dialect) {
                // Writing to a `String` cannot fail.
                let _ = writeln!(
                    text,
                    "signalbox_gateway_sockets{{dialect=\"{}\",transport=\"{}\"}} {}",
                    dialect.name(),
                    transport.name(),
                    gauge.get()
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_and_transport_is_counted_by_itself() {
        let sockets = Sockets::default();
        sockets.add(Dialect::Livekit, Transport::WebSocket, 2);
        sockets.add(Dialect::Whip, Transport::ServerSent, 1);
        sockets.add(Dialect::Livekit, Transport::WebSocket, -1);
        let mut text = String::new();
        sockets.render(&mut text);
        for line in [
            r#"signalbox_gateway_sockets{dialect="livekit",transport="websocket"} 1"#,
            r#"signalbox_gateway_sockets{dialect="livekit",transport="server_sent"} 0"#,
            r#"signalbox_gateway_sockets{dialect="whip",transport="server_sent"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }
}
