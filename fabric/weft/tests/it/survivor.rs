//! A client that outlives its server: starts it again when it dies, repeats what was not acknowledged, and holds it to what was.

use serde_json::{Value, json};

use crate::clock::{eventually, until_empty};
use crate::fixture::Place;
use crate::http::{Request, Response};
use crate::server::{Server, Setup};
use crate::{folder, guests, job};

/// Deaths after which a server is not started again: one is what a test causes.
const DEATHS_MAX: u32 = 3;

pub(crate) struct Survivor<'a> {
    place: &'a Place,
    setup: Setup,
    /// Nothing while the server is down.
    server: Option<Server>,
    pub(crate) deaths: u32,
    /// Name and digest of components whose upload was answered.
    components: Vec<(String, Value)>,
    /// Jobs whose submission was answered.
    jobs: Vec<String>,
}

impl<'a> Survivor<'a> {
    /// Starts the server, again if need be.
    pub(crate) fn start(place: &'a Place, setup: Setup) -> Survivor<'a> {
        let mut survivor = Survivor {
            place,
            setup,
            server: None,
            deaths: 0,
            components: Vec::new(),
            jobs: Vec::new(),
        };
        survivor.server();
        survivor
    }

    /// The server, which is started where it is down.
    pub(crate) fn server(&mut self) -> &Server {
        while self.server.is_none() {
            match Server::try_start(&self.place.data(), &self.setup) {
                Ok(server) => self.server = Some(server),
                Err(died) => {
                    assert!(died.contains("signal: 9"), "{died}");
                    self.count_death();
                }
            }
        }
        self.server.as_ref().expect("it was started above")
    }

    fn count_death(&mut self) {
        self.deaths += 1;
        assert!(self.deaths <= DEATHS_MAX, "the server dies again and again");
    }

    /// Kills the server and starts it again.
    pub(crate) fn crash(&mut self) {
        self.server.take().expect("it runs").kill();
        self.deaths += 1;
        self.check_acknowledged();
    }

    /// Asks until there is an answer. Requests must be such that repeating them does no harm.
    fn ask(&mut self, request: &Request) -> Response {
        eventually("the server answers", || {
            match self.server().try_ask(request) {
                // The executor was lost while it had to do with the request.
                Ok(answer) if answer.status == 429 => None,
                Ok(answer) => Some(answer),
                Err(_) => {
                    self.server
                        .take()
                        .expect("it was asked")
                        .wait_until_killed();
                    self.count_death();
                    self.check_acknowledged();
                    None
                }
            }
        })
    }

    /// Panics unless all that was acknowledged is there.
    fn check_acknowledged(&mut self) {
        for (name, digest) in self.components.clone() {
            let found = self
                .ask(&Request::get(format!("/v1/components/{name}")))
                .ok();
            assert_eq!(found["digest"], digest, "`{name}` was acknowledged");
        }
        for id in self.jobs.clone() {
            let found = self.ask(&Request::get(format!("/v1/jobs/{id}"))).ok();
            assert_eq!(found["id"], json!(id), "the job was acknowledged");
        }
    }

    pub(crate) fn deploy(&mut self, guest: &str) {
        let record = self.ask(&Request::component(guests::bytes(guest))).ok();
        let name = record["name"].as_str().expect("components have names");
        self.components
            .push((name.to_owned(), record["digest"].clone()));
    }

    /// Submits the job under a key, so that submitting it again does no harm.
    pub(crate) fn submit(&mut self, job: &Value, key: &str) -> String {
        let request = Request::json("/v1/jobs", job).header("idempotency-key", key);
        let id = job::id_of(&self.ask(&request).ok());
        self.jobs.push(id.clone());
        id
    }

    pub(crate) fn show(&mut self, id: &str) -> Value {
        self.ask(&Request::get(format!("/v1/jobs/{id}"))).ok()
    }

    pub(crate) fn wait(&mut self, id: &str) -> Value {
        eventually("the job ends", || {
            Some(self.show(id)).filter(job::has_ended)
        })
    }

    /// Waits until the server has died `deaths` times, for kills that come when no client waits for anything any more.
    pub(crate) fn wait_until_died(&mut self, deaths: u32) {
        eventually("the server dies", || {
            self.check_acknowledged();
            (self.deaths >= deaths).then_some(())
        });
    }

    /// Waits until the server has tidied up, and panics where something is left. The server may die over it.
    pub(crate) fn wait_until_tidy(&mut self, outputs: &std::path::Path) {
        let left = |survivor: &mut Survivor<'_>| {
            // Keeps a server running that dies while it tidies up.
            survivor.check_acknowledged();
            let mut left = folder::leftovers(&survivor.place.data());
            left.extend(folder::staged(outputs));
            left
        };
        until_empty("nothing is left behind", || left(self));
    }
}
