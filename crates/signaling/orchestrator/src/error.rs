//! Everything that can go wrong in this crate.

use std::borrow::Cow;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration contradicts itself. The text is a sentence for the operator; it holds no secret.
    #[error("{0}")]
    Config(&'static str),
    /// The database is away, or its schema is not there yet. Trying again later helps.
    #[error("the database is not available: {0}")]
    Unavailable(#[source] Box<sqlx::Error>),
    /// The database did not answer in time, or not to another request that asked the same. Trying again later helps.
    #[error("the database does not answer in time")]
    Unanswered,
    /// The store is not open yet: the schema is still to be checked against the database.
    #[error("the database has not been reached since the start")]
    NotReady,
    /// The database answered, but not as this version expects. Trying again does not help.
    #[error("the database refused a statement or holds what this version cannot read: {0}")]
    Database(#[source] Box<sqlx::Error>),
    /// The schema cannot be brought to this version.
    #[error("the database's schema does not fit this version: {0}")]
    Schema(#[source] Box<sqlx::migrate::MigrateError>),
    /// A ticket could not be signed.
    #[error("a ticket could not be signed: {0}")]
    Ticket(#[from] jsonwebtoken::errors::Error),
    /// The client that asks nodes could not be made.
    #[error("nodes cannot be asked over HTTP: {0}")]
    Client(#[from] reqwest::Error),
    /// The listener failed.
    #[error("the listener failed: {0}")]
    Listener(#[from] std::io::Error),
}

impl Error {
    /// Whether the same may well succeed in a moment.
    pub fn is_outage(&self) -> bool {
        matches!(self, Error::Unavailable(_) | Error::Unanswered | Error::NotReady)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let outage = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => true,
            sqlx::Error::Database(answer) => answer.code().is_some_and(is_outage_code),
            _ => false,
        };
        if outage {
            Error::Unavailable(Box::new(error))
        } else {
            Error::Database(Box::new(error))
        }
    }
}

impl From<sqlx::migrate::MigrateError> for Error {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError;
        match error {
            MigrateError::Execute(error) => match Error::from(error) {
                Error::Database(error) => Error::Schema(Box::new(MigrateError::Execute(*error))),
                outage => outage,
            },
            MigrateError::ExecuteMigration(error, version) => match Error::from(error) {
                Error::Database(error) => Error::Schema(Box::new(MigrateError::ExecuteMigration(*error, version))),
                outage => outage,
            },
            other => Error::Schema(Box::new(other)),
        }
    }
}

/// SQLSTATEs (PostgreSQL, appendix A) that pass: by class, connection exceptions, no such login or database yet,
/// serialization failures and deadlocks, lack of resources, a lock or statement that took too long, shutdown and
/// start-up, system errors; and a server that has become a read-only standby.
fn is_outage_code(code: Cow<'_, str>) -> bool {
    const CLASSES: [&str; 8] = ["08", "28", "3D", "40", "53", "55", "57", "58"];
    const READ_ONLY: &str = "25006";
    code.get(..2).is_some_and(|class| CLASSES.contains(&class)) || code == READ_ONLY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_are_told_from_errors_that_stay() {
        for code in ["57P01", "57P03", "53300", "40001", "25006", "57014", "3D000"] {
            assert!(is_outage_code(code.into()), "{code}");
        }
        for code in ["42P01", "23505", "22P02", ""] {
            assert!(!is_outage_code(code.into()), "{code}");
        }
        assert!(Error::from(sqlx::Error::PoolTimedOut).is_outage());
        assert!(!Error::from(sqlx::Error::RowNotFound).is_outage());
    }
}
