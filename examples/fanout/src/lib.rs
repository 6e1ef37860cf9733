//! A task that spawns a thousand others and adds up their answers.

use weft::prelude::*;
use weft::tasks::{Future, spawn};

weft::component! {
    /// Adds up the squares of 1 to the number that it is given, 1,000 by default, each computed by a task of its own.
    task "sum" = sum;
    /// Squares a number.
    task "square" = square;
}

/// Tasks that are spawned if the input does not say how many.
const TASKS: u64 = 1000;
/// Tasks that one sum may spawn.
const MAX_TASKS: u64 = 10_000;

fn sum(task: Task) -> Result<Vec<u8>> {
    let n = match task.input.trim_ascii() {
        [] => TASKS,
        input => number(input)?,
    };
    if n > MAX_TASKS {
        return Err(format!("a sum of {n} squares: at most {MAX_TASKS} are added up").into());
    }
    // All are spawned before the first one is waited for: they run side by side.
    let spawned = (1..=n).map(|n| spawn("square", n.to_string()));
    let squares = spawned.collect::<Result<Vec<Future>>>()?;
    let mut sum = 0;
    for square in squares {
        sum += number(&square.join()?)?;
    }
    Ok(sum.to_string().into_bytes())
}

fn square(task: Task) -> Result<Vec<u8>> {
    let n = number(&task.input)?;
    let square = n.checked_mul(n);
    let square = square.ok_or_else(|| Error::new(format!("the square of {n} is too large")))?;
    Ok(square.to_string().into_bytes())
}

fn number(text: &[u8]) -> Result<u64> {
    let text = str::from_utf8(text)?.trim();
    text.parse()
        .map_err(|_| Error::new(format!("`{text}` is not a whole number")))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use weft::testing::on_spawn;

    use super::*;

    /// Runs spawned tasks as the component would, and counts them.
    fn spawned() -> Rc<Cell<u64>> {
        let n_spawned = Rc::new(Cell::new(0));
        let count = Rc::clone(&n_spawned);
        on_spawn(move |function, task| {
            assert_eq!(function, "square");
            count.set(count.get() + 1);
            square(task)
        });
        n_spawned
    }

    #[test]
    fn squares_are_added_up() {
        let n_spawned = spawned();
        assert_eq!(sum(Task::new(*b"3\n")).expect("adds up"), b"14");
        assert_eq!(n_spawned.get(), 3);
        assert_eq!(sum(Task::default()).expect("adds up"), b"333833500");
        assert_eq!(n_spawned.get(), 1003);
    }

    #[test]
    fn a_task_that_fails_fails_the_sum() {
        on_spawn(|_, task| match number(&task.input)? {
            7 => Err("no seven".into()),
            _ => square(task),
        });
        assert_eq!(sum(Task::new(*b"6")).expect("adds up"), b"91");
        let error = sum(Task::new(*b"8")).expect_err("one fails");
        assert_eq!(error.message(), "no seven");
    }

    #[test]
    fn inputs_that_are_no_numbers_are_refused() {
        let n_spawned = spawned();
        for input in ["x", "-1", "10001"] {
            assert!(sum(Task::new(input)).is_err(), "{input}");
        }
        assert_eq!(n_spawned.get(), 0);
        assert!(square(Task::new(*b"4294967296")).is_err());
    }
}
