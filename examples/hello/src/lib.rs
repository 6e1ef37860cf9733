//! The smallest component that has a bit of everything: a map and two tasks.

use weft::prelude::*;

weft::component! {
    /// Adds a column `greeting`: hello to each name.
    map "greet" = Greet;
    /// Answers with its input.
    task "echo" = echo;
    /// Does nothing.
    task "noop" = noop;
}

struct Greet {
    hello: String,
}

fn greeting() -> Field {
    Field::nullable("greeting", DataType::Utf8)
}

impl Map for Greet {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        input.require("name", DataType::Utf8)?;
        Ok(input.clone().with(greeting()))
    }

    fn open(params: &Params) -> Result<Greet> {
        Ok(Greet {
            hello: params.get("hello").unwrap_or("hello").into(),
        })
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        let mut greetings = Utf8Builder::new();
        for name in input.utf8("name")?.iter() {
            let greeting = name.map(|name| format!("{}, {name}", self.hello));
            greetings.push_option(greeting.as_deref());
        }
        out.emit(input.with_column(greeting(), greetings)?)
    }
}

fn echo(task: Task) -> Result<Vec<u8>> {
    Ok(task.input)
}

fn noop(_: Task) -> Result<Vec<u8>> {
    Ok(vec![])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets_by_name() {
        let names = Column::from_iter([Some("Ada"), None]);
        let input =
            Batch::new(&Schema::new().utf8("name").nullable(), [names]).expect("one column");
        let run = weft::testing::run_map::<Greet>(&Params::from([("hello", "hi")]), vec![input]);
        assert_eq!(
            run.expect("greets").rows(),
            ["Ada | hi, Ada", "null | null"]
        );
    }

    #[test]
    fn answers_with_its_input() {
        assert_eq!(echo(Task::new(*b"abc")).expect("echoes"), b"abc");
        assert!(noop(Task::default()).expect("nothing").is_empty());
    }
}
