//! Messages of Flight and Flight SQL, as far as they are read and written here. Fields that are not listed are passed
//! over.
//!
//! Numbers and names are those of `Flight.proto` and `FlightSql.proto` of Apache Arrow.

use bytes::Bytes;
use prost::Message;

use super::grpc::{Code, Status};

/// Prefix of the types of packed messages.
const TYPES: &str = "type.googleapis.com/arrow.flight.protocol.sql.";

/// `google.protobuf.Any`: a message with its type.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FlightDescriptor {
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) cmd: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Ticket {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) ticket: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FlightEndpoint {
    #[prost(message, optional, tag = "1")]
    pub(super) ticket: Option<Ticket>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FlightInfo {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) schema: Bytes,
    #[prost(message, optional, tag = "2")]
    pub(super) flight_descriptor: Option<FlightDescriptor>,
    #[prost(message, repeated, tag = "3")]
    pub(super) endpoint: Vec<FlightEndpoint>,
    #[prost(int64, tag = "4")]
    pub(super) total_records: i64,
    #[prost(int64, tag = "5")]
    pub(super) total_bytes: i64,
}

/// The first message of a client that puts; its data is not read.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PutBegin {
    #[prost(message, optional, tag = "1")]
    pub(super) flight_descriptor: Option<FlightDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PutResult {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) app_metadata: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Action {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) body: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ActionResult {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) body: Bytes,
}

/// `CommandStatementQuery`, `CommandStatementUpdate` and `ActionCreatePreparedStatementRequest`, which have the same
/// fields.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Statement {
    #[prost(string, tag = "1")]
    pub(super) query: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) transaction_id: Bytes,
}

/// `CommandPreparedStatementQuery` and `CommandPreparedStatementUpdate`, which have the same field.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Prepared {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) prepared_statement_handle: Bytes,
}

/// `ActionCreatePreparedStatementResult`, without schemas: that of the rows comes with the rows, and there are no
/// parameters.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CreatedPreparedStatement {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) prepared_statement_handle: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TicketStatementQuery {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) statement_handle: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DoPutUpdateResult {
    #[prost(int64, tag = "1")]
    pub(super) record_count: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetDbSchemas {
    #[prost(string, optional, tag = "1")]
    pub(super) catalog: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) db_schema_filter_pattern: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetTables {
    #[prost(string, optional, tag = "1")]
    pub(super) catalog: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) db_schema_filter_pattern: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) table_name_filter_pattern: Option<String>,
    #[prost(string, repeated, tag = "4")]
    pub(super) table_types: Vec<String>,
    #[prost(bool, tag = "5")]
    pub(super) include_schema: bool,
}

/// A list that drivers ask for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum List {
    Catalogs,
    DbSchemas(GetDbSchemas),
    Tables(GetTables),
    TableTypes,
}

/// A command or a ticket.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asked {
    /// Run a statement for its rows.
    Query(String),
    /// Run a statement for what it changes.
    Update(String),
    /// Take the rows of a job's output: `JOB/OUTPUT`.
    Rows(String),
    /// Take a list.
    List(List),
}

impl Asked {
    /// Reads a command or a ticket. Errors: `Unimplemented` for one that is not offered.
    pub(super) fn read(bytes: &[u8]) -> Result<Asked, Status> {
        let any = Any::decode(bytes).map_err(|error| unread(&error))?;
        let Some(name) = any.type_url.strip_prefix(TYPES) else {
            let what = format!(
                "`{}` is no command of Flight SQL",
                any.type_url.escape_debug()
            );
            return Err(Status::new(Code::InvalidArgument, what));
        };
        let value = any.value.clone();
        Ok(match name {
            "CommandStatementQuery" => Asked::Query(statement(decode(value)?)?),
            "CommandStatementUpdate" => Asked::Update(statement(decode(value)?)?),
            "CommandPreparedStatementQuery" => Asked::Query(prepared(decode(value)?)?),
            "CommandPreparedStatementUpdate" => Asked::Update(prepared(decode(value)?)?),
            "TicketStatementQuery" => {
                let ticket: TicketStatementQuery = decode(value)?;
                Asked::Rows(text(&ticket.statement_handle)?)
            }
            "CommandGetCatalogs" => Asked::List(List::Catalogs),
            "CommandGetDbSchemas" => Asked::List(List::DbSchemas(decode(value)?)),
            "CommandGetTables" => Asked::List(List::Tables(decode(value)?)),
            "CommandGetTableTypes" => Asked::List(List::TableTypes),
            other => {
                let what = format!("`{}` is not offered", other.escape_debug());
                return Err(Status::new(Code::Unimplemented, what));
            }
        })
    }
}

/// The statement of a request for a prepared one: its handle, too, so that controllers keep nothing.
pub(super) fn to_prepare(action: &Bytes) -> Result<String, Status> {
    let any = Any::decode(action.clone()).map_err(|error| unread(&error))?;
    statement(decode(any.value)?)
}

/// Packs a message with its type.
pub(super) fn pack(name: &str, message: &impl Message) -> Bytes {
    let any = Any {
        type_url: format!("{TYPES}{name}"),
        value: message.encode_to_vec().into(),
    };
    any.encode_to_vec().into()
}

fn statement(asked: Statement) -> Result<String, Status> {
    match asked.transaction_id.is_empty() {
        true => Ok(asked.query),
        false => {
            let what = "there are no transactions: each statement stands for itself";
            Err(Status::new(Code::Unimplemented, what))
        }
    }
}

fn prepared(asked: Prepared) -> Result<String, Status> {
    text(&asked.prepared_statement_handle)
}

fn text(bytes: &Bytes) -> Result<String, Status> {
    String::from_utf8(bytes.to_vec()).map_err(|error| unread(&error))
}

fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Status> {
    M::decode(bytes).map_err(|error| unread(&error))
}

fn unread(error: &dyn std::fmt::Display) -> Status {
    Status::new(
        Code::InvalidArgument,
        format!("the message cannot be read: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, message: &impl Message, expected: Result<Asked, Code>) {
        let asked = Asked::read(&pack(name, message));
        assert_eq!(asked.map_err(|status| status.code), expected, "{name}");
    }

    #[test]
    fn commands_are_told_by_their_types() {
        let query = |transaction: &'static str| Statement {
            query: "SELECT 1".into(),
            transaction_id: transaction.into(),
        };
        let prepared = Prepared {
            prepared_statement_handle: "SELECT 1".into(),
        };
        let select = || "SELECT 1".to_owned();
        check(
            "CommandStatementQuery",
            &query(""),
            Ok(Asked::Query(select())),
        );
        check(
            "CommandStatementUpdate",
            &query(""),
            Ok(Asked::Update(select())),
        );
        check(
            "CommandPreparedStatementQuery",
            &prepared,
            Ok(Asked::Query(select())),
        );
        check(
            "CommandPreparedStatementUpdate",
            &prepared,
            Ok(Asked::Update(select())),
        );
        check(
            "CommandStatementQuery",
            &query("t"),
            Err(Code::Unimplemented),
        );
        check(
            "CommandGetPrimaryKeys",
            &query(""),
            Err(Code::Unimplemented),
        );
        let ticket = TicketStatementQuery {
            statement_handle: Bytes::from_static(b"\xff"),
        };
        check("TicketStatementQuery", &ticket, Err(Code::InvalidArgument));
        for unknown in [&b""[..], b"\xff\xff"] {
            let refused = Asked::read(unknown).expect_err("it is no command");
            assert_eq!(refused.code, Code::InvalidArgument, "{unknown:?}");
        }
    }
}
