//! Functions that expressions may call, and how long their results are at most.
//!
//! A function is offered if the bytes of its result follow from the bytes of its arguments, or from literals. Its time
//! must be about proportional to both.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::physical_expr::expressions::{CastExpr, Literal, TryCastExpr};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use weft_core::{ErrorCode, Problem};

use super::cost::Extent;
use crate::statement::invalid;

/// Bytes of a pattern.
const PATTERN_BYTES_MAX: usize = 1024;
/// Bytes of a compiled pattern.
const PATTERN_COMPILED_BYTES_MAX: usize = 512 << 10;
/// Memory of matching a pattern: compiled forms and caches of the automata.
pub(super) const MATCHING_BYTES: u64 = 8 << 20;
/// Bytes that one byte of a format for dates becomes at most.
const FORMATTED_BYTES: u64 = 32;
/// Bytes of a duration as text, whose format is one of two, whatever is asked for.
const DURATION_BYTES: u64 = 128;
/// Bytes that one byte of a text becomes in a list of characters, while the list doubles.
const LISTED_BYTES: u64 = 12;
/// Flags of a regular expression, without the one that has all matches replaced.
const FLAGS: &str = "imsxUu";
/// Bytes of a character.
const CHARACTER_BYTES: u64 = 4;

/// Bytes of a result by those of the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// So many for each row.
    Each(u64),
    /// As many as all arguments together.
    Sum,
    /// So many times those of the first argument.
    First(u64),
    /// As many as all arguments but the first, with that between them.
    Joined,
    /// Those of the first argument, where each piece of so many bytes becomes the third one.
    Replaced(Option<u64>),
    /// Those of the first argument, and so many for each row.
    Padded(u64),
    /// Those of the first argument, where one match is repeated so often and becomes so many more.
    Rewritten { references: u64, text: u64 },
}

impl Growth {
    pub(super) fn apply(self, values: &[Extent], rows: u64) -> Extent {
        let first = values.first().copied().unwrap_or_default();
        let sum = |values: &[Extent]| {
            values
                .iter()
                .fold(Extent::default(), |sum, one| sum.plus(*one))
        };
        match self {
            Growth::Each(bytes) => Extent::each(bytes, rows),
            Growth::Sum => sum(values),
            Growth::First(factor) => first.times(factor),
            Growth::Joined => {
                let joints = values.len().saturating_sub(2) as u64;
                let between = Extent::each(first.longest.saturating_mul(joints), rows);
                sum(values.get(1..).unwrap_or_default()).plus(between)
            }
            Growth::Replaced(from) => {
                let to = values.get(2).map_or(0, |to| to.longest);
                let pieces = match from {
                    Some(from) if from > 0 => first.divided(from),
                    // What is empty stands between all characters.
                    _ => first.plus(Extent::each(1, rows)),
                };
                first.plus(pieces.times(to))
            }
            Growth::Padded(bytes) => first.plus(Extent::each(bytes, rows)),
            Growth::Rewritten { references, text } => {
                let kept = first.times(references.saturating_add(1));
                kept.plus(Extent::each(text, rows))
            }
        }
    }

    /// Bytes of what a text is padded with: all of it, where each character starts, and the characters to repeat.
    pub(super) fn padding_bytes(self, values: &[Extent]) -> u64 {
        let Growth::Padded(bytes) = self else {
            return 0;
        };
        let fill = values.get(2).map_or(1, |fill| fill.longest);
        let characters = fill.saturating_mul(LISTED_BYTES);
        bytes.saturating_mul(3).saturating_add(characters)
    }
}

/// Finds out how a call grows, and the memory that it works in. `fixed`: the width of its result, if that has one.
///
/// Errors: `InvalidJob` if the function is not offered, or not with these arguments.
pub(super) fn of_call(
    call: &ScalarFunctionExpr,
    fixed: Option<u64>,
) -> Result<(Growth, u64), Problem> {
    let name = call.fun().name();
    let by_type = fixed.map_or(Growth::Sum, Growth::Each);
    let growth = match name {
        "greatest" | "least" | "nullif" => by_type,
        "get_field" => fixed.map_or(Growth::First(1), Growth::Each),
        "concat" => Growth::Sum,
        "concat_ws" => Growth::Joined,
        // Characters of two bytes have upper-case forms of six.
        "upper" | "lower" | "initcap" => Growth::First(3),
        "btrim" | "ltrim" | "rtrim" => {
            // Each character is compared with each of the second argument.
            if call.args().len() > 1 {
                check_length(text(call, 1)?)?;
            }
            return Ok((Growth::First(1), LISTED_BYTES * PATTERN_BYTES_MAX as u64));
        }
        "substr" | "left" | "right" | "reverse" | "split_part" | "substr_index" => Growth::First(1),
        "translate" => Growth::First(CHARACTER_BYTES),
        "replace" => Growth::Replaced(text(call, 1).ok().map(|from| from.len() as u64)),
        "repeat" => Growth::First(number(call, 1)?),
        "lpad" | "rpad" => Growth::Padded(number(call, 1)?.saturating_mul(CHARACTER_BYTES)),
        "chr" => Growth::Each(CHARACTER_BYTES),
        "to_hex" => Growth::Each(16),
        "to_char" => {
            let bytes = FORMATTED_BYTES.saturating_mul(text(call, 1)?.len() as u64);
            Growth::Each(bytes.max(DURATION_BYTES))
        }
        "regexp_like" | "regexp_replace" => return of_pattern(call, fixed),
        // A search that is not linear in what it searches for.
        "strpos" => {
            text(call, 1)?;
            by_type
        }
        other if fixed.is_some() && is_fixed(other) => by_type,
        _ => return Err(not_offered(name)),
    };
    Ok((growth, 0))
}

/// Functions of numbers, dates and texts whose results have a fixed width.
fn is_fixed(name: &str) -> bool {
    const NUMBERS: &[&str] = &[
        "abs",
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "cbrt",
        "ceil",
        "cos",
        "cosh",
        "cot",
        "degrees",
        "exp",
        "factorial",
        "floor",
        "gcd",
        "isnan",
        "iszero",
        "lcm",
        "ln",
        "log",
        "log10",
        "log2",
        "nanvl",
        "pi",
        "power",
        "radians",
        "round",
        "signum",
        "sin",
        "sinh",
        "sqrt",
        "tan",
        "tanh",
        "trunc",
        "ascii",
    ];
    const TEXTS: &[&str] = &[
        "bit_length",
        "character_length",
        "contains",
        "ends_with",
        "octet_length",
        "starts_with",
    ];
    const DATES: &[&str] = &[
        "date_bin",
        "date_part",
        "date_trunc",
        "from_unixtime",
        "make_date",
        "to_date",
        "to_local_time",
        "to_timestamp",
        "to_timestamp_micros",
        "to_timestamp_millis",
        "to_timestamp_nanos",
        "to_timestamp_seconds",
        "to_unixtime",
        "make_time",
    ];
    NUMBERS.contains(&name) || TEXTS.contains(&name) || DATES.contains(&name)
}

fn not_offered(name: &str) -> Problem {
    invalid(format!(
        "the function `{name}` is not offered here: its memory or time has no bound that is known before it runs; \
         compute it in the function's own code, or in a stage of SQL"
    ))
}

/// Calls with a pattern: it and all arguments after it are literals.
fn of_pattern(call: &ScalarFunctionExpr, fixed: Option<u64>) -> Result<(Growth, u64), Problem> {
    let name = call.fun().name();
    for (position, argument) in call.args().iter().enumerate().skip(1) {
        if constant(argument).is_none() {
            return Err(not_literal(name, position));
        }
    }
    let flags_at = if name == "regexp_replace" { 3 } else { 2 };
    let flags = match call.args().len() > flags_at {
        true => text(call, flags_at)?,
        false => "",
    };
    check_flags(name, flags)?;
    // Flags decide how long a pattern is when it is compiled.
    match flags {
        "" => check_pattern(text(call, 1)?)?,
        _ => check_pattern(&format!("(?{flags}){}", text(call, 1)?))?,
    }
    let growth = match (name, fixed) {
        ("regexp_replace", _) => {
            let by = text(call, 2)?;
            let is_reference = |c: &char| matches!(c, '\\' | '$');
            Growth::Rewritten {
                references: by.chars().filter(is_reference).count() as u64,
                text: by.len() as u64,
            }
        }
        (_, Some(width)) => Growth::Each(width),
        (_, None) => return Err(not_offered(name)),
    };
    Ok((growth, MATCHING_BYTES))
}

/// Checks the flags of a regular expression.
///
/// Finding all matches may read the rest of a text again for each of them.
fn check_flags(name: &str, flags: &str) -> Result<(), Problem> {
    if flags.contains('g') {
        return Err(invalid(format!(
            "the flag `g` of `{name}` is not offered here: its time may grow with the square of a text; use `replace`, \
             or a stage of SQL"
        )));
    }
    let is_known = flags.len() <= FLAGS.len() && flags.chars().all(|flag| FLAGS.contains(flag));
    match is_known {
        true => Ok(()),
        false => Err(invalid(format!(
            "the flags of `{name}` are letters of `{FLAGS}`, each at most once"
        ))),
    }
}

/// Checks the bounds of a regular expression.
pub(super) fn check_pattern(pattern: &str) -> Result<(), Problem> {
    check_length(pattern)?;
    // The larger form, whether or not the case matters.
    let compiled = regex::RegexBuilder::new(pattern)
        .case_insensitive(true)
        .size_limit(PATTERN_COMPILED_BYTES_MAX)
        .build();
    match compiled {
        Ok(_) => Ok(()),
        Err(regex::Error::CompiledTooBig(_)) => Err(Problem::new(
            ErrorCode::TooLarge,
            format!(
                "the pattern `{pattern}` takes more than {PATTERN_COMPILED_BYTES_MAX} bytes when it is compiled: \
                 repeat less in it"
            ),
        )),
        Err(error) => Err(invalid(format!(
            "`{pattern}` is not a regular expression: {error}"
        ))),
    }
}

/// Checks the bounds of a pattern of LIKE.
pub(super) fn check_length(pattern: &str) -> Result<(), Problem> {
    if pattern.len() <= PATTERN_BYTES_MAX {
        return Ok(());
    }
    let detail = format!(
        "a pattern of {} bytes; {PATTERN_BYTES_MAX} are allowed",
        pattern.len()
    );
    Err(Problem::new(ErrorCode::TooLarge, detail))
}

/// A literal, whatever it is cast to.
pub(super) fn constant(expression: &Arc<dyn PhysicalExpr>) -> Option<&ScalarValue> {
    if let Some(literal) = expression.downcast_ref::<Literal>() {
        return Some(literal.value());
    }
    let cast = expression.downcast_ref::<CastExpr>().map(CastExpr::expr);
    let tried = || {
        expression
            .downcast_ref::<TryCastExpr>()
            .map(TryCastExpr::expr)
    };
    cast.or_else(tried).and_then(constant)
}

fn not_literal(name: &str, position: usize) -> Problem {
    invalid(format!(
        "argument {} of `{name}` must be a literal, so that there is a bound before it runs",
        position + 1
    ))
}

/// The text of a literal, which may be null.
pub(super) fn constant_text(expression: &Arc<dyn PhysicalExpr>) -> Option<&str> {
    match constant(expression)? {
        ScalarValue::Null => Some(""),
        value => Some(value.try_as_str()?.unwrap_or_default()),
    }
}

/// An argument that is a text, as a literal.
fn text(call: &ScalarFunctionExpr, position: usize) -> Result<&str, Problem> {
    let text = call.args().get(position).and_then(constant_text);
    text.ok_or_else(|| not_literal(call.fun().name(), position))
}

/// An argument that is a number, as a literal. Negative ones are 0.
fn number(call: &ScalarFunctionExpr, position: usize) -> Result<u64, Problem> {
    let value = call.args().get(position).and_then(constant);
    let number = value.and_then(|value| value.cast_to(&DataType::Int64).ok());
    match number {
        Some(ScalarValue::Int64(number)) => Ok(u64::try_from(number.unwrap_or(0)).unwrap_or(0)),
        _ => Err(not_literal(call.fun().name(), position)),
    }
}
