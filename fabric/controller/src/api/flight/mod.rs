//! Flight SQL: statements and their rows over gRPC, for ADBC and other drivers, at the address of the API.
//!
//! ```text
//! GetFlightInfo ──▶ statement: a job, run to its end ──▶ ticket: job and output
//! DoGet ──▶ ticket ──▶ executor reads and encodes Arrow ──▶ wrapped as it comes ──▶ client
//! ```
//!
//! Protobuf is spoken here, Arrow by executors: neither statements nor rows are parsed. Prepared statements have their
//! text as their handle, so that nothing is kept for them and any controller runs them.

mod data;
mod grpc;
mod listing;
mod messages;
mod statement;

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use prost::Message as _;
use weft_control::Tables;
use weft_core::job::is_sql_command;
use weft_core::{ErrorCode, Problem, TenantId};
use weft_protocol::{OutputRows, RowsFormat, RowsOf};

use super::auth::Principal;
use super::reply::{ApiResult, Failure};
use super::{Api, jobs, rows};
use crate::traces::RequestTrace;
use grpc::{Code, SERVICE, Status};
use messages::{
    Action, ActionResult, Asked, CreatedPreparedStatement, DoPutUpdateResult, FlightDescriptor,
    FlightEndpoint, FlightInfo, List, PutBegin, PutResult, Ticket, TicketStatementQuery,
};

pub(super) use grpc::translate;
pub(crate) use statement::Statements;

/// A schema without columns, as an Arrow stream begins: that of statements without rows.
const NO_COLUMNS: [u8; 56] = [
    0xff, 0xff, 0xff, 0xff, 0x30, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0x0a, 0, 0x0c, 0, 0x06, 0, 0x05, 0,
    0x08, 0, 0x0a, 0, 0, 0, 0, 0x01, 0x04, 0, 0x0c, 0, 0, 0, 0x08, 0, 0x08, 0, 0, 0, 0x04, 0, 0x08,
    0, 0, 0, 0x04, 0, 0, 0, 0, 0, 0, 0,
];
/// A number of rows or bytes that is not known, as Flight writes it.
const UNKNOWN: i64 = -1;

/// Routes of the service. They are no part of the HTTP API's reference.
pub(super) fn routes() -> Router<Api> {
    Router::new().route(&format!("{SERVICE}{{method}}"), post(call))
}

/// Who calls.
struct Caller {
    api: Api,
    tenant: TenantId,
    trace: RequestTrace,
    /// How long the client waits.
    patience: Duration,
}

async fn call(
    State(api): State<Api>,
    principal: Principal,
    Extension(trace): Extension<RequestTrace>,
    Path(method): Path<String>,
    version: Version,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    if version != Version::HTTP_2 || !grpc::is_grpc(&headers) {
        let detail = "Flight SQL is spoken over HTTP/2 with `Content-Type: application/grpc`: use a driver of it";
        let problem = Problem::new(ErrorCode::InvalidJob, detail);
        return Err(Failure::with_status(
            problem,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ));
    }
    let patience = grpc::timeout(&headers).unwrap_or(statement::MAX_STATEMENT_WALL);
    let caller = Caller {
        api,
        tenant: principal.tenant,
        trace,
        patience: patience.min(statement::MAX_STATEMENT_WALL),
    };
    let answered = match method.as_str() {
        "GetFlightInfo" => caller.info(body).await,
        "DoGet" => caller.get(body).await,
        "DoPut" => caller.put(body).await,
        "DoAction" => caller.act(body).await,
        other => Err(not_offered(other)),
    };
    Ok(answered.unwrap_or_else(IntoResponse::into_response))
}

fn not_offered(what: &str) -> Status {
    let what = format!("`{}` is not offered", what.escape_debug());
    Status::new(Code::Unimplemented, what)
}

impl Caller {
    /// Runs a statement, or promises a list.
    async fn info(&self, body: Body) -> Result<Response, Status> {
        let descriptor: FlightDescriptor = grpc::message(body).await?;
        let mut info = FlightInfo {
            total_records: UNKNOWN,
            total_bytes: UNKNOWN,
            ..FlightInfo::default()
        };
        match Asked::read(&descriptor.cmd)? {
            Asked::Query(statement) => {
                let done = self.run(&statement).await?;
                info.total_records = done.rows();
                if is_sql_command(&statement) {
                    info.schema = Bytes::from_static(&NO_COLUMNS);
                } else {
                    let handle = format!("{}/{}", done.job, statement::RESULT);
                    let ticket = TicketStatementQuery {
                        statement_handle: handle.into(),
                    };
                    let ticket = messages::pack("TicketStatementQuery", &ticket);
                    info.endpoint.push(endpoint(ticket));
                }
            }
            Asked::List(_) => info.endpoint.push(endpoint(descriptor.cmd.clone())),
            Asked::Update(_) | Asked::Rows(_) => {
                let what = "`GetFlightInfo` takes queries and lists";
                return Err(Status::new(Code::InvalidArgument, what));
            }
        }
        info.flight_descriptor = Some(descriptor);
        Ok(grpc::one(&info))
    }

    /// Sends the rows of a ticket.
    async fn get(&self, body: Body) -> Result<Response, Status> {
        let Ticket { ticket } = grpc::message(body).await?;
        let of = match Asked::read(&ticket)? {
            Asked::Rows(handle) => self.output(&handle).await?,
            Asked::List(list) => {
                if self.api.replica.may_lag() {
                    self.api.replica.catch_up().await?;
                }
                self.list(&list)?
            }
            Asked::Query(_) | Asked::Update(_) => {
                let what = "the ticket is a command: `GetFlightInfo` makes a ticket of it";
                return Err(Status::new(Code::InvalidArgument, what));
            }
        };
        let coming = rows::start(&self.api, self.tenant.clone(), of, RowsFormat::Messages);
        Ok(data::answer(coming))
    }

    /// Makes a list. Errors: `InvalidArgument` for patterns and types beyond their bounds.
    fn list(&self, list: &List) -> Result<RowsOf, Status> {
        listing::check(list)?;
        let tables = match list {
            List::Tables(_) => {
                // Copied, within their bound: changes wait while the state is read, and matching takes longer.
                let state = self.api.replica.state();
                let tenant = state.tenant(&self.tenant);
                tenant.map_or_else(Tables::default, |tenant| tenant.tables.clone())
            }
            List::Catalogs | List::DbSchemas(_) | List::TableTypes => Tables::default(),
        };
        Ok(RowsOf::Listing(listing::rows(list, &tables)))
    }

    /// Finds the output of a ticket.
    async fn output(&self, handle: &str) -> Result<RowsOf, Status> {
        let (job, output) = handle.split_once('/').ok_or_else(|| {
            let what = format!("`{}` is no ticket of a statement", handle.escape_debug());
            Status::new(Code::InvalidArgument, what)
        })?;
        let (api, tenant) = (&self.api, &self.tenant);
        jobs::catch_up_on(api, tenant, job).await?;
        let found = rows::find(api, tenant, job, output).await;
        let (job, output) = found.map_err(Problem::from)?;
        Ok(RowsOf::Output(Box::new(OutputRows {
            job,
            output,
            offset: 0,
            limit: None,
        })))
    }

    /// Runs a statement for what it changes.
    async fn put(&self, body: Body) -> Result<Response, Status> {
        let PutBegin { flight_descriptor } = grpc::message(body).await?;
        let descriptor = flight_descriptor.unwrap_or_default();
        let statement = match Asked::read(&descriptor.cmd)? {
            Asked::Update(statement) => statement,
            Asked::Query(_) => {
                let what = "statements have no parameters: write the values into the statement";
                return Err(Status::new(Code::Unimplemented, what));
            }
            Asked::Rows(_) | Asked::List(_) => {
                let what = "`DoPut` takes statements";
                return Err(Status::new(Code::InvalidArgument, what));
            }
        };
        let done = self.run(&statement).await?;
        let result = DoPutUpdateResult {
            record_count: done.rows(),
        };
        Ok(grpc::one(&PutResult {
            app_metadata: result.encode_to_vec().into(),
        }))
    }

    /// Makes a handle of a statement, or forgets one.
    async fn act(&self, body: Body) -> Result<Response, Status> {
        let Action { kind, body } = grpc::message(body).await?;
        match kind.as_str() {
            "CreatePreparedStatement" => {
                let statement = messages::to_prepare(&body)?;
                statement::check(&statement)?;
                let created = CreatedPreparedStatement {
                    prepared_statement_handle: statement.into(),
                };
                Ok(grpc::one(&ActionResult {
                    body: messages::pack("ActionCreatePreparedStatementResult", &created),
                }))
            }
            // Nothing is kept for a handle.
            "ClosePreparedStatement" => Ok(grpc::none()),
            other => Err(not_offered(other)),
        }
    }
}

fn endpoint(ticket: Bytes) -> FlightEndpoint {
    FlightEndpoint {
        ticket: Some(Ticket { ticket }),
    }
}
