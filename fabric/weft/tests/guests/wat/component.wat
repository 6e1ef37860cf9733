;; A component by hand, for what no SDK and no Rust would do. Tests put code where a word stands in braces: `imports` (of the
;; component), `imported` and `with` (what the module imports, and from where), `fields` (of the module: tables, more memories, a
;; start function), `describe`, `bind`, `run` (bodies that leave the address of their answer on the stack), `kind` (of the one function), `name`, `length`.
;;
;; 512: an answer of `bind` and `run` without fields or bytes. 1024: the description. 65536: what was allocated, and never freed.
(component $C
  (type $data-type0 (enum "boolean" "int8" "int16" "int32" "int64" "uint8" "uint16" "uint32" "uint64" "float32" "float64"
    "utf8" "binary" "date32" "timestamp-us" "decimal128" "array-of" "struct-of"))
  (export $data-type "data-type" (type $data-type0))
  (type $field0 (record (field "name" string) (field "data-type" $data-type) (field "nullable" bool) (field "children" u32)
    (field "precision" u8) (field "scale" s8)))
  (export $field "field" (type $field0))
  (type $kind0 (enum "map-batches" "reduce-groups" "combine-groups" "task"))
  (export $kind "kind" (type $kind0))
  (type $function0 (record (field "name" string) (field "kind" $kind) (field "summary" string) (field "deterministic" bool)))
  (export $function "function" (type $function0))
  (type $description0 (record (field "name" string) (field "version" string) (field "functions" (list $function))))
  (export $description "description" (type $description0))
  {imports}
  (core module $module
    {imported}
    (memory (export "memory") 2)
    {fields}
    (data (i32.const 1024) "\4c\04\00\00{length}\00\00\00\b0\04\00\00\05\00\00\00\14\05\00\00\01\00\00\00")
    (data (i32.const 1100) "{name}")
    (data (i32.const 1200) "0.1.0")
    (data (i32.const 1300) "\78\05\00\00\01\00\00\00{kind}\00\00\00\78\05\00\00\00\00\00\00\01\00\00\00")
    (data (i32.const 1400) "f")
    (global $top (mut i32) (i32.const 65536))
    (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
      (global.set $top (i32.add (local.get $at) (local.get 3)))
      (loop $more
        (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
          (then (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable)) (br $more))))
      (local.get $at))
    (func (export "describe") (result i32) {describe})
    (func (export "bind") (param i32 i32 i32 i32 i32 i32) (result i32) {bind})
    (func (export "run") (param i32 i32 i32 i32 i32 i32 i32) (result i32) {run}))
  (core instance $instance (instantiate $module {with}))
  (alias core export $instance "memory" (core memory $memory))
  (alias core export $instance "realloc" (core func $realloc))
  (func $describe (result $description) (canon lift (core func $instance "describe") (memory $memory) (realloc $realloc)))
  (func $bind (param "function" string) (param "input" (list $field)) (param "params" (list (tuple string string)))
    (result (result (list $field) (error string)))
    (canon lift (core func $instance "bind") (memory $memory) (realloc $realloc)))
  (func $run (param "function" string) (param "params" (list (tuple string string))) (param "index" u32) (param "input" (list u8))
    (result (result (list u8) (error string)))
    (canon lift (core func $instance "run") (memory $memory) (realloc $realloc)))
  (instance $functions
    (export "data-type" (type $data-type)) (export "field" (type $field)) (export "kind" (type $kind))
    (export "function" (type $function)) (export "description" (type $description))
    (export "describe" (func $describe)) (export "bind" (func $bind)))
  (instance $task (export "run" (func $run)))
  (export "weft:fabric/functions@0.1.0" (instance $functions))
  (export "weft:fabric/task@0.1.0" (instance $task)))
