//! What a schema expects, in words for whoever sent the request.

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{JsonType, JsonTypeSet, ValidationError};
use serde_json::Value;

/// Longest pattern, constant or other text of a schema in one message, in characters.
const QUOTED_CHARS_MAX: usize = 100;
/// Longest list of allowed values in one message, in characters.
const LIST_CHARS_MAX: usize = 200;
/// Most alternatives that are told apart.
const ALTERNATIVES_MAX: usize = 5;

/// What was expected in place of the value that an error is about. `is_secret` keeps values of the schema out of it.
pub fn expected(error: &ValidationError<'_>, is_secret: bool) -> String {
    match error.kind() {
        Kind::Type { kind: TypeKind::Single(one) } => a(*one).to_owned(),
        Kind::Type { kind: TypeKind::Multiple(several) } => any_type(*several),
        Kind::Required { .. } => "it to be there: it is required".to_owned(),
        Kind::AdditionalProperties { .. } | Kind::UnevaluatedProperties { .. } => "no member of this name".to_owned(),
        Kind::FalseSchema if refuses_members(error) => "no member of this name".to_owned(),
        Kind::FalseSchema => "nothing to be there".to_owned(),
        Kind::Constant { .. } | Kind::Enum { .. } if is_secret => "an allowed value".to_owned(),
        Kind::Constant { expected_value } => short(&expected_value.to_string()),
        Kind::Enum { options } => one_of(options),
        Kind::AnyOf { context } => alternatives(error, context, is_secret)
            .unwrap_or_else(|| "one of the forms that the schema lists".to_owned()),
        Kind::OneOfNotValid { context } => alternatives(error, context, is_secret)
            .unwrap_or_else(|| "exactly one of the forms that the schema lists".to_owned()),
        Kind::OneOfMultipleValid { .. } => "exactly one of the forms that the schema lists, not several".to_owned(),
        Kind::Not { .. } => "something that the schema does not exclude".to_owned(),
        Kind::PropertyNames { error } => format!("members whose names are each {}", expected(error, is_secret)),
        kind => of_number(kind).or_else(|| of_string(kind)).or_else(|| of_list(kind)).unwrap_or_else(|| other(kind)),
    }
}

/// Whether it comes of an `additionalProperties: false` beside no other names: such an error is about the whole object.
pub fn refuses_members(error: &ValidationError<'_>) -> bool {
    matches!(error.kind(), Kind::FalseSchema) && error.schema_path().as_str().ends_with("/additionalProperties")
}

fn of_number(kind: &Kind) -> Option<String> {
    Some(match kind {
        Kind::Minimum { limit } => format!("a number of at least {limit}"),
        Kind::Maximum { limit } => format!("a number of at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("a number above {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("a number below {limit}"),
        Kind::MultipleOf { multiple_of } => format!("a multiple of {multiple_of}"),
        _ => return None,
    })
}

fn of_string(kind: &Kind) -> Option<String> {
    Some(match kind {
        Kind::Pattern { pattern } => format!("a string of the pattern {}", short(pattern)),
        Kind::MinLength { limit } => format!("a string of at least {}", counted(*limit, "character")),
        Kind::MaxLength { limit } => format!("a string of at most {}", counted(*limit, "character")),
        Kind::Format { format } => format!("a string of the format {}", short(format)),
        Kind::ContentEncoding { content_encoding } => format!("a string in {}", short(content_encoding)),
        Kind::ContentMediaType { content_media_type } => format!("a string that holds {}", short(content_media_type)),
        _ => return None,
    })
}

fn of_list(kind: &Kind) -> Option<String> {
    Some(match kind {
        Kind::MinItems { limit } => format!("a list of at least {}", counted(*limit, "item")),
        Kind::MaxItems { limit } => format!("a list of at most {}", counted(*limit, "item")),
        Kind::AdditionalItems { limit } => format!("a list of at most {}", counted(*limit as u64, "item")),
        Kind::UnevaluatedItems { .. } => "a list without more items than the schema knows".to_owned(),
        Kind::UniqueItems => "a list of items that all differ".to_owned(),
        Kind::Contains => "a list with items such as the schema wants".to_owned(),
        Kind::MinProperties { limit } => format!("an object of at least {}", counted(*limit, "member")),
        Kind::MaxProperties { limit } => format!("an object of at most {}", counted(*limit, "member")),
        _ => return None,
    })
}

fn other(kind: &Kind) -> String {
    format!("what the schema says in `{}`", short(kind.keyword()))
}

fn a(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Array => "a list",
        JsonType::Boolean => "a boolean",
        JsonType::Integer => "an integer",
        JsonType::Null => "null",
        JsonType::Number => "a number",
        JsonType::Object => "an object",
        JsonType::String => "a string",
    }
}

/// `null` last: it is the exception.
fn any_type(types: JsonTypeSet) -> String {
    let null = types.iter().filter(|one| *one == JsonType::Null);
    or(types.iter().filter(|one| *one != JsonType::Null).chain(null).map(|one| a(one).to_owned()))
}

fn one_of(options: &Value) -> String {
    let Some(options) = options.as_array() else { return short(&options.to_string()) };
    let mut list = String::new();
    for (index, option) in options.iter().enumerate() {
        let option = option.to_string();
        if index > 0 && list.len().saturating_add(option.len()) > LIST_CHARS_MAX {
            list.push_str(", …");
            break;
        }
        list.push_str(if index > 0 { ", " } else { "" });
        list.push_str(&short(&option));
    }
    match options.len() {
        1 => list,
        _ => format!("one of {list}"),
    }
}

/// What each alternative has against the value, when that is one thing about the value itself.
fn alternatives(
    error: &ValidationError<'_>,
    context: &[Vec<ValidationError<'static>>],
    is_secret: bool,
) -> Option<String> {
    if context.is_empty() || context.len() > ALTERNATIVES_MAX {
        return None;
    }
    let path = error.instance_path();
    let each = context.iter().map(|errors| match errors.as_slice() {
        [only] if only.instance_path() == path && !matches!(only.kind(), Kind::Required { .. }) => {
            Some(expected(only, is_secret))
        }
        _ => None,
    });
    let each: Option<Vec<String>> = each.collect();
    let mut each = each?;
    each.dedup();
    Some(or(each.into_iter()))
}

fn or(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" or ")
}

/// `1 item`, `2 items`.
pub fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A text of the schema, shortened.
pub fn short(text: &str) -> String {
    cut(text, QUOTED_CHARS_MAX)
}

/// The text, or so many characters of it with `…` as the last one.
pub fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().nth(chars_max).is_none() {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests;
