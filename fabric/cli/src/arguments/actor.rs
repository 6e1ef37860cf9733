//! Arguments of `weft actor`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::duration;

/// Commands of `weft actor`.
#[derive(Debug, Subcommand)]
pub(crate) enum ActorCommand {
    /// Invoke a method of an actor with standard input
    Invoke(ActorInvokeArguments),
    /// List actors by key
    List(ActorListArguments),
    /// Show an actor
    Show(ActorArguments),
    /// Remove an actor with its state, its alarm and its messages that have not been sent
    Delete(ActorArguments),
}

/// An actor.
#[derive(Debug, Args)]
pub(crate) struct ActorArguments {
    /// COMPONENT/ACTOR, whose newest version runs
    pub(crate) function: String,
    /// Key of the actor
    pub(crate) key: String,
}

/// Arguments of `weft actor invoke`.
#[derive(Debug, Args)]
pub(crate) struct ActorInvokeArguments {
    #[command(flatten)]
    pub(crate) of: ActorArguments,
    /// Method of the actor
    pub(crate) method: String,
    /// Input [default: standard input]
    #[arg(long, value_name = "TEXT")]
    pub(crate) input: Option<String>,
    /// Deadline of the invocation, waiting included, such as `30s` or `500ms` [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) deadline: Option<Duration>,
    /// Idempotency key: repeats get the stored answer, for 24 hours or `--idempotency-ttl`
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Time for which the answer is stored, in seconds [default: 86400]
    #[arg(long, value_name = "SECONDS", requires = "idempotency_key")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) idempotency_ttl: Option<u32>,
}

/// Arguments of `weft actor list`.
#[derive(Debug, Args)]
pub(crate) struct ActorListArguments {
    /// COMPONENT/ACTOR
    pub(crate) function: String,
    /// List keys after this one
    #[arg(long, value_name = "KEY")]
    pub(crate) after: Option<String>,
    /// Maximum number of actors
    #[arg(long, value_name = "N", default_value = "100")]
    pub(crate) limit: usize,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Arguments, Command};
    use super::*;

    fn parse(line: &[&str]) -> Result<Command, clap::Error> {
        let line = [&["weft", "actor"][..], line].concat();
        Arguments::try_parse_from(line).map(|arguments| arguments.command)
    }

    #[test]
    fn an_actor_is_named_by_function_and_key() {
        let line = ["invoke", "bank/account", "ada", "deposit"];
        let deadline = ["--input", "5", "--deadline", "500ms"];
        let Ok(Command::Actor(ActorCommand::Invoke(invoke))) =
            parse(&[&line[..], &deadline].concat())
        else {
            panic!("it is an invocation");
        };
        assert_eq!(invoke.of.function, "bank/account");
        assert_eq!((&*invoke.of.key, &*invoke.method), ("ada", "deposit"));
        assert_eq!(invoke.deadline, Some(Duration::from_millis(500)));
        for wrong in [
            &["invoke", "bank/account", "ada"][..],
            &["show", "bank/account"],
            &["list"],
            &[],
            &["invoke", "a/b", "k", "m", "--deadline", "5"],
            &["invoke", "a/b", "k", "m", "--deadline", "11m"],
            &["invoke", "a/b", "k", "m", "--idempotency-ttl", "5"],
        ] {
            assert_eq!(parse(wrong).expect_err("wrong").exit_code(), 2, "{wrong:?}");
        }
    }
}
