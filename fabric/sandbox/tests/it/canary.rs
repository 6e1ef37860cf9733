//! A slot of the pool is used again, by other tenants, and holds nothing of those before: no memory, no table, no global.

use std::sync::Arc;

use weft_sandbox::{Component, Guest};

use crate::support::{load, settings};

/// More than the pool has slots, so that each is used again and again.
const CYCLES: u32 = 1000;

/// A component whose task leaves a mark wherever it can, or looks for one: `index` is the number of pages that it grows its
/// memory by, and the answer is what it found before that, 32 bits little endian.
///
/// `other` makes it another component, with other code and an image of its own in its first page.
fn tenant(other: &str) -> Arc<Component> {
    let text = format!(
        r#"(component
            (type $data-type0 (enum "boolean"))
            (core module $module
                (memory (export "memory") 1)
                (table $table 64 1000 funcref)
                (global $low (mut i32) (i32.const 0))
                (global $high (mut i64) (i64.const 0))
                (global $top (mut i32) (i32.const 1024))
                (data (i32.const 512) "{other}")
                (elem declare func $mark)
                (func $mark)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
                    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
                    (global.set $top (i32.add (local.get $at) (local.get 3)))
                    (local.get $at))
                ;; Words that are not zero, from 4096 to the end of the memory.
                (func $words (result i32) (local $at i32) (local $n i32)
                    (local.set $at (i32.const 4096))
                    (loop $next
                        (if (i64.ne (i64.load (local.get $at)) (i64.const 0))
                            (then (local.set $n (i32.add (local.get $n) (i32.const 1)))))
                        (local.set $at (i32.add (local.get $at) (i32.const 8)))
                        (br_if $next (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
                    (local.get $n))
                ;; Places of the table that hold something.
                (func $places (result i32) (local $at i32) (local $n i32)
                    (loop $next
                        (if (i32.eqz (ref.is_null (table.get $table (local.get $at))))
                            (then (local.set $n (i32.add (local.get $n) (i32.const 1)))))
                        (local.set $at (i32.add (local.get $at) (i32.const 1)))
                        (br_if $next (i32.lt_u (local.get $at) (table.size $table))))
                    (local.get $n))
                (func (export "run") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (local $found i32)
                    (if (i32.eq (memory.grow (local.get 4)) (i32.const -1)) (then unreachable))
                    (drop (table.grow $table (ref.null func) (i32.const 936)))
                    (local.set $found (i32.add (call $words) (call $places)))
                    (if (i32.or (global.get $low) (i64.ne (global.get $high) (i64.const 0)))
                        (then (local.set $found (i32.add (local.get $found) (i32.const 1)))))
                    ;; The mark.
                    (memory.fill (i32.const 4096) (i32.const 0xa5) (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4096)))
                    (table.fill $table (i32.const 0) (ref.func $mark) (table.size $table))
                    (global.set $low (i32.const 0x5ec2e7))
                    (global.set $high (i64.const 0x5ec2e75ec2e7))
                    (i32.store (i32.const 768) (local.get $found))
                    (i32.store (i32.const 600) (i32.const 0))
                    (i32.store (i32.const 604) (i32.const 768))
                    (i32.store (i32.const 608) (i32.const 4))
                    (i32.const 600))
                (func (export "f")))
            (core instance $instance (instantiate $module))
            (alias core export $instance "memory" (core memory $memory))
            (alias core export $instance "realloc" (core func $realloc))
            (func $f (canon lift (core func $instance "f")))
            (func $run (param "function" string) (param "params" (list (tuple string string))) (param "index" u32) (param "input" (list u8))
                (result (result (list u8) (error string)))
                (canon lift (core func $instance "run") (memory $memory) (realloc $realloc)))
            (instance $functions (export "describe" (func $f)) (export "bind" (func $f)))
            (instance $task (export "run" (func $run)))
            (export "weft:fabric/functions@0.1.0" (instance $functions))
            (export "weft:fabric/task@0.1.0" (instance $task)))"#
    );
    load(&wat::parse_str(text).expect("it is a component"))
}

/// What a guest finds in its sandbox, of `pages` more than it started with, before it leaves its mark.
async fn found(component: &Arc<Component>, pages: u32) -> (Guest, u32) {
    let started = Guest::start(component, settings()).await;
    let mut guest = started.expect("it starts");
    let answer = guest.run_task("f", &[], pages, &[]).await;
    let answer = answer.expect("it looks").try_into().expect("four bytes");
    (guest, u32::from_le_bytes(answer))
}

#[tokio::test]
async fn nothing_of_one_tenant_is_seen_by_the_next() {
    assert!(
        crate::support::engine().is_pooling(),
        "slots are used again"
    );
    let tenants = [tenant("a"), tenant("b")];
    for cycle in 0..CYCLES {
        // Fewer pages than are wiped in place, and more; in turns by the same component and by another.
        let pages = [1, 2, 60][cycle as usize % 3];
        let component = &tenants[(cycle / 2) as usize % 2];
        let (guest, found) = found(component, pages).await;
        assert_eq!(found, 0, "cycle {cycle}: what another left behind");
        drop(guest);
    }
}

/// The canary can be seen at all: in the sandbox that it was left in.
#[tokio::test]
async fn a_mark_is_seen_in_the_sandbox_that_it_was_left_in() {
    let component = tenant("a");
    let (mut guest, first) = found(&component, 1).await;
    let answer = guest.run_task("f", &[], 0, &[]).await.expect("it looks");
    let second = u32::from_le_bytes(answer.try_into().expect("four bytes"));
    // All words behind the first 4 096 bytes of two pages, a thousand places of the table, the globals.
    assert_eq!((first, second), (0, (2 * 65536 - 4096) / 8 + 1000 + 1));
}

/// Slots are used again while guests of others are alive beside them, and after guests that trapped.
#[tokio::test]
async fn nothing_is_left_of_a_guest_that_failed() {
    let (component, honest) = (tenant("a"), tenant("b"));
    for _ in 0..64 {
        let (mut guest, _) = found(&component, 60).await;
        // More than there is: it traps, and the sandbox is dropped with the mark in it.
        let failed = guest.run_task("f", &[], u32::MAX, &[]).await;
        assert!(failed.is_err());
        drop(guest);
        assert_eq!(found(&honest, 60).await.1, 0);
    }
}
