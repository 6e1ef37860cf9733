//! What guests do, under which limits, and what is said of it.

/// A limit of a job, and what an error must say of it: its name and its value.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// What the job asks for; nothing where the limit is the fabric's own.
    pub(super) asked: Option<(&'static str, &'static str)>,
    /// Name and value.
    pub(super) said: Option<(&'static str, &'static str)>,
}

const fn asked(name: &'static str, text: &'static str, value: &'static str) -> Limit {
    Limit {
        asked: Some((name, text)),
        said: Some((name, value)),
    }
}

const fn fixed(name: &'static str, value: &'static str) -> Limit {
    Limit {
        asked: None,
        said: Some((name, value)),
    }
}

/// Not a limit: the guest did something wrong.
pub(super) const WRONG: Limit = Limit {
    asked: None,
    said: None,
};

const CPU: &[Limit] = &[
    asked("cpu", "200ms", "200 ms"),
    asked("cpu", "500ms", "500 ms"),
];
const MEMORY: &[Limit] = &[
    asked("memory", "32MiB", "32 MiB"),
    asked("memory", "64MiB", "64 MiB"),
];
const OUTPUT: &[Limit] = &[
    asked("output", "1MiB", "1048576 bytes"),
    asked("output", "2MiB", "2097152 bytes"),
];
const WALL: &[Limit] = &[
    asked("wall", "700ms", "700 ms"),
    asked("wall", "1400ms", "1400 ms"),
];
const HANDLES: &[Limit] = &[fixed("handles", "4096 batches")];
const LOG: &[Limit] = &[fixed("log", "64 MiB")];
const TABLES: &[Limit] = &[fixed("tables", "100000 elements of a table, 200000 of all")];
const STACK: &[Limit] = &[fixed("stack", "512 KiB")];
const NONE: &[Limit] = &[WRONG];

/// Where a deed is done.
#[derive(Clone, Copy)]
pub(super) enum Entry {
    Map(&'static str),
    Reduce(&'static str),
    Combine(&'static str),
    Task,
    /// A task of a component that was put together by hand: its name.
    Foreign(&'static str),
}

pub(super) struct Case {
    pub(super) deed: &'static str,
    pub(super) entry: Entry,
    pub(super) limits: &'static [Limit],
    pub(super) code: &'static str,
    pub(super) words: &'static [&'static str],
}

const fn case(
    deed: &'static str,
    entry: Entry,
    limits: &'static [Limit],
    code: &'static str,
    words: &'static [&'static str],
) -> Case {
    Case {
        deed,
        entry,
        limits,
        code,
        words,
    }
}

use Entry::{Combine, Foreign, Map, Reduce, Task};

const OVER: &str = "limit_exceeded";

pub(super) const CASES: &[Case] = &[
    // Time, in every entry point.
    case("spin", Map("bind"), CPU, OVER, &["stage `mapped`"]),
    case("spin", Map("open"), CPU, OVER, &["task 0"]),
    case("spin", Map("push"), CPU, OVER, &["task 0"]),
    case("spin", Map("finish"), CPU, OVER, &["task 0"]),
    case("spin", Reduce("bind"), CPU, OVER, &["stage `reduced`"]),
    case("spin", Reduce("open"), CPU, OVER, &[]),
    case("spin", Reduce("push"), CPU, OVER, &[]),
    case("spin", Reduce("end"), CPU, OVER, &[]),
    case("spin", Reduce("finish"), CPU, OVER, &[]),
    case("spin", Combine("bind"), CPU, OVER, &[]),
    case("spin", Combine("open"), CPU, OVER, &[]),
    case("spin", Combine("push"), CPU, OVER, &[]),
    case("spin", Combine("end"), CPU, OVER, &[]),
    case("spin", Task, CPU, OVER, &[]),
    case("spin", Task, WALL, OVER, &["raise `limits.wall`"]),
    case("sleeps", Foreign("sleeps"), WALL, OVER, &[]),
    case("bind-sleeps", Foreign("bind-sleeps"), WALL, OVER, &[]),
    // Memory.
    case("eat", Map("bind"), MEMORY, OVER, &["stage `mapped`"]),
    case("eat", Map("push"), MEMORY, OVER, &[]),
    case("eat", Map("finish"), MEMORY, OVER, &[]),
    case("eat", Reduce("push"), MEMORY, OVER, &[]),
    case("eat", Combine("push"), MEMORY, OVER, &[]),
    case("eat", Task, MEMORY, OVER, &[]),
    case("memories", Foreign("memories"), MEMORY, OVER, &[]),
    case("take", Map("push"), MEMORY, OVER, &[]),
    case("take", Task, MEMORY, OVER, &[]),
    case("filter", Map("push"), MEMORY, OVER, &[]),
    case("filter", Task, MEMORY, OVER, &[]),
    case("tables", Foreign("tables"), TABLES, OVER, &[]),
    case("wide-table", Foreign("wide-table"), TABLES, OVER, &[]),
    case("recurse", Map("push"), STACK, OVER, &[]),
    case("recurse", Task, STACK, OVER, &[]),
    // Floods.
    case(
        "flood",
        Map("push"),
        OUTPUT,
        OVER,
        &["raise `limits.output`"],
    ),
    case("flood", Reduce("push"), OUTPUT, OVER, &[]),
    case("answer", Task, OUTPUT, OVER, &[]),
    case("log-flood", Map("push"), LOG, OVER, &["log less"]),
    case("log-flood", Task, LOG, OVER, &[]),
    case("log-nothing", Task, LOG, OVER, &[]),
    case("hold", Map("push"), HANDLES, OVER, &["drop batches"]),
    case("hold", Task, HANDLES, OVER, &[]),
    case(
        "pollables",
        Foreign("pollables"),
        &[fixed("handles", "4096 handles")],
        OVER,
        &[],
    ),
    // Lies, to the host and to the runtime.
    case("short-values", Map("push"), NONE, "guest_error", &["Int64"]),
    case(
        "offsets-past-the-end",
        Map("push"),
        NONE,
        "guest_error",
        &["ffset"],
    ),
    case(
        "offsets-that-fall",
        Map("push"),
        NONE,
        "guest_error",
        &["ffset"],
    ),
    case(
        "negative-offsets",
        Map("push"),
        NONE,
        "guest_error",
        &["ffset"],
    ),
    case("bytes-as-text", Map("push"), NONE, "guest_error", &["UTF8"]),
    case(
        "too-many-rows",
        Map("push"),
        NONE,
        "guest_error",
        &["4294967295 rows"],
    ),
    case(
        "wrong-schema",
        Map("push"),
        NONE,
        "schema_mismatch",
        &["bound to"],
    ),
    case(
        "far-answer",
        Foreign("far-answer"),
        NONE,
        "guest_trap",
        &["out of bounds"],
    ),
    case(
        "long-answer",
        Foreign("long-answer"),
        NONE,
        "guest_trap",
        &["out of bounds"],
    ),
    case(
        "garbled-error",
        Foreign("garbled-error"),
        NONE,
        "guest_trap",
        &["utf-8"],
    ),
    case(
        "long-name",
        Map("bind"),
        NONE,
        "schema_mismatch",
        &["100000 bytes", "1024"],
    ),
    case(
        "too-many",
        Map("bind"),
        NONE,
        "schema_mismatch",
        &["5000 fields", "4096"],
    ),
    case("wide", Map("bind"), NONE, "schema_mismatch", &["bytes"]),
    case("twice", Map("bind"), NONE, "schema_mismatch", &["rows"]),
    case(
        "refuse",
        Map("bind"),
        NONE,
        "guest_error",
        &["binds to nothing"],
    ),
    case("rude-name", Map("bind"), NONE, "schema_mismatch", &[]),
    case(
        "no-columns",
        Map("bind"),
        NONE,
        "schema_mismatch",
        &["without columns"],
    ),
    // Ends.
    case(
        "unreachable",
        Map("push"),
        NONE,
        "guest_trap",
        &["unreachable"],
    ),
    case(
        "trap",
        Map("push"),
        NONE,
        "guest_trap",
        &["trapped on purpose"],
    ),
    case("trap", Map("bind"), NONE, "guest_trap", &["stage `mapped`"]),
    case("trap", Reduce("end"), NONE, "guest_trap", &[]),
    case("trap", Task, NONE, "guest_trap", &[]),
    case(
        "fail",
        Map("open"),
        NONE,
        "guest_error",
        &["failed on purpose"],
    ),
];

/// Bodies for the component of `component.wat`, by the name that it gets.
pub(super) struct Body {
    pub(super) name: &'static str,
    pub(super) wasi: bool,
    /// The function's kind, as a number of the contract: 0 is a map, 3 a task.
    pub(super) kind: u8,
    pub(super) fields: &'static str,
    pub(super) describe: &'static str,
    pub(super) bind: &'static str,
    pub(super) run: &'static str,
}

pub(super) const HONEST: Body = Body {
    name: "honest",
    wasi: false,
    kind: 3,
    fields: "",
    describe: "(i32.const 1024)",
    bind: "(i32.const 512)",
    run: "(i32.const 512)",
};

const FOR_EVER: &str =
    "(call $block (call $subscribe (i64.const 0x7fffffffffffffff))) (i32.const 512)";

pub(super) const FOREIGN: &[Body] = &[
    Body {
        name: "sleeps",
        wasi: true,
        run: FOR_EVER,
        ..HONEST
    },
    Body {
        name: "bind-sleeps",
        wasi: true,
        kind: 0,
        bind: FOR_EVER,
        ..HONEST
    },
    Body {
        name: "pollables",
        wasi: true,
        run: "(loop $again (drop (call $subscribe (i64.const 1))) br $again) (i32.const 512)",
        ..HONEST
    },
    Body {
        name: "memories",
        fields: "(memory $a 0) (memory $b 0) (memory $c 0) (memory $d 0) (memory $e 0) (memory $f 0) (memory $g 0)",
        run: "(loop $again
            (if (i32.eq (memory.grow $a (i32.const 1)) (i32.const -1)) (then unreachable))
            (if (i32.eq (memory.grow $d (i32.const 1)) (i32.const -1)) (then unreachable))
            (if (i32.eq (memory.grow $g (i32.const 1)) (i32.const -1)) (then unreachable))
            br $again) (i32.const 512)",
        ..HONEST
    },
    Body {
        name: "tables",
        fields: "(table $table 0 funcref)",
        run: "(loop $again (br_if $again (i32.ne (table.grow $table (ref.null func) (i32.const 10000)) (i32.const -1)))) unreachable",
        ..HONEST
    },
    Body {
        // What it asks for, on top of what it has, is more than can be counted.
        name: "wide-table",
        fields: "(table 1000 funcref) (table $table 0 funcref)",
        run: "(drop (table.grow $table (ref.null func) (i32.const -11))) unreachable",
        ..HONEST
    },
    Body {
        name: "far-answer",
        run: "(i32.const 0x7ffffff0)",
        ..HONEST
    },
    Body {
        name: "long-answer",
        run: "(i32.store (i32.const 604) (i32.const 0)) (i32.store (i32.const 608) (i32.const -1)) (i32.const 600)",
        ..HONEST
    },
    Body {
        name: "garbled-error",
        run: "(i32.store8 (i32.const 600) (i32.const 1)) (i32.store (i32.const 604) (i32.const 700))
            (i32.store (i32.const 608) (i32.const 2)) (i32.store16 (i32.const 700) (i32.const 0xfeff)) (i32.const 600)",
        ..HONEST
    },
];

pub(super) fn assembled(body: &Body) -> Vec<u8> {
    let (imports, imported, with) = match body.wasi {
        true => (
            include_str!("../../guests/wat/clock.wat"),
            r#"(import "wasi" "subscribe" (func $subscribe (param i64) (result i32))) (import "wasi" "block" (func $block (param i32)))"#,
            r#"(with "wasi" (instance $wasi))"#,
        ),
        false => ("", "", ""),
    };
    let text = include_str!("../../guests/wat/component.wat")
        .replace("{imports}", imports)
        .replace("{imported}", imported)
        .replace("{with}", with)
        .replace("{fields}", body.fields)
        .replace("{describe}", body.describe)
        .replace("{bind}", body.bind)
        .replace("{run}", body.run)
        .replace("{kind}", &format!("\\{:02x}", body.kind))
        .replace("{name}", body.name)
        .replace("{length}", &format!("\\{:02x}", body.name.len()));
    wat::parse_str(text).expect("the test's own WAT is right")
}
