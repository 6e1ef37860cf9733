  (import "wasi:io/poll@0.2.6" (instance $poll
    (export "pollable" (type $pollable0 (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable0))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.6" (instance $clock
    (alias outer $C $pollable (type $pollable1))
    (export "pollable" (type $pollable2 (eq $pollable1)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable2))))))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core instance $wasi (export "subscribe" (func $subscribe)) (export "block" (func $block)))
