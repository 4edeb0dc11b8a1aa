//! JSON as the official encoder writes it into prompts: `, ` and `: ` between parts, keys in their
//! order, characters beyond ASCII as they are, numbers as Python prints them (spec 5.2).
//!
//! A type of its own, because prompts must not change by a digit: integers of any length are kept,
//! and floats follow Python's rule for when an exponent is written.
use std::collections::HashMap;
use std::fmt::{self, Write};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A JSON value that keeps what matters in a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`, `true`, `false` or a number, as it will be written.
    Atom(String),
    /// A string, unescaped.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// An object; a repeated key has its first place and its last value.
    Object(Vec<(String, Json)>),
}

/// Damaged JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("json: byte {at}: expected {expected}")]
pub struct JsonError {
    at: usize,
    expected: &'static str,
}

/// Deepest nesting read.
const DEPTH_MAX: usize = 128;
/// Longest integer read, in digits; Python's limit.
const DIGITS_MAX: usize = 4300;

impl Json {
    /// Reads one JSON value and nothing after it.
    ///
    /// Like the official encoder's reader it takes `NaN`, `Infinity` and `-Infinity`.
    pub fn parse(text: &str) -> Result<Json, JsonError> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0)?;
        reader.skip_space();
        if reader.at < text.len() { reader.fail("the end") } else { Ok(value) }
    }

    /// Whether Python would call it false: null, false, zero, or empty.
    pub(super) fn is_falsy(&self) -> bool {
        match self {
            Json::Atom(atom) => matches!(atom.as_str(), "null" | "false" | "0" | "0.0" | "-0.0"),
            Json::Text(text) => text.is_empty(),
            Json::Array(items) => items.is_empty(),
            Json::Object(members) => members.is_empty(),
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Atom(atom) => f.write_str(atom),
            Json::Text(text) => write_string(f, text),
            Json::Array(items) => {
                f.write_char('[')?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
                }
                f.write_char(']')
            }
            Json::Object(members) => {
                f.write_char('{')?;
                for (i, (key, value)) in members.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { ", " })?;
                    write_string(f, key)?;
                    write!(f, ": {value}")?;
                }
                f.write_char('}')
            }
        }
    }
}

fn write_string(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    text.chars().try_for_each(|c| write_escaped(out, c))?;
    out.write_char('"')
}

/// Writes one character of a JSON string.
pub(super) fn write_escaped(out: &mut impl Write, c: char) -> fmt::Result {
    match c {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\u{8}' => out.write_str("\\b"),
        '\u{c}' => out.write_str("\\f"),
        c if c < ' ' => write!(out, "\\u{:04x}", c as u32),
        c => out.write_char(c),
    }
}

/// A float as Python prints it: shortest digits, an exponent below 1e-4 and from 1e16 on.
fn python_float(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("the format writes an exponent");
    let exponent: i32 = exponent.parse().expect("the format writes a decimal exponent");
    if (-4..16).contains(&exponent) {
        return format!("{value:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn fail<T>(&self, expected: &'static str) -> Result<T, JsonError> {
        Err(JsonError { at: self.at, expected })
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn take(&mut self, token: &str) -> bool {
        let here = self.rest().starts_with(token);
        self.at += if here { token.len() } else { 0 };
        here
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        if depth > DEPTH_MAX {
            return self.fail("at most 128 levels");
        }
        self.skip_space();
        if self.take("{") {
            return self.object(depth);
        }
        if self.take("[") {
            return self.array(depth);
        }
        if self.take("\"") {
            return self.string().map(Json::Text);
        }
        for word in ["null", "true", "false", "NaN", "Infinity", "-Infinity"] {
            if self.take(word) {
                return Ok(Json::Atom(word.into()));
            }
        }
        self.number()
    }

    fn array(&mut self, depth: usize) -> Result<Json, JsonError> {
        let mut items = Vec::new();
        self.skip_space();
        if self.take("]") {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_space();
            if self.take("]") {
                return Ok(Json::Array(items));
            }
            if !self.take(",") {
                return self.fail("`,` or `]`");
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, JsonError> {
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        self.skip_space();
        if self.take("}") {
            return Ok(Json::Object(members));
        }
        loop {
            self.skip_space();
            if !self.take("\"") {
                return self.fail("a key");
            }
            let key = self.string()?;
            self.skip_space();
            if !self.take(":") {
                return self.fail("`:`");
            }
            let value = self.value(depth + 1)?;
            match places.get(&key) {
                Some(&place) => members[place].1 = value,
                None => {
                    places.insert(key.clone(), members.len());
                    members.push((key, value));
                }
            }
            self.skip_space();
            if self.take("}") {
                return Ok(Json::Object(members));
            }
            if !self.take(",") {
                return self.fail("`,` or `}`");
            }
        }
    }

    /// A string whose opening quote is taken.
    fn string(&mut self) -> Result<String, JsonError> {
        let mut out = String::new();
        loop {
            let Some(c) = self.rest().chars().next() else { return self.fail("a closing quote") };
            if c < ' ' {
                return self.fail("an escaped control character");
            }
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(out),
                '\\' => out.push(self.escape()?),
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let Some(c) = self.rest().chars().next() else { return self.fail("an escape") };
        let plain = match c {
            '"' | '\\' | '/' => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return self.unicode_escape(),
            _ => return self.fail("an escape"),
        };
        self.at += 1;
        Ok(plain)
    }

    /// `uXXXX`, or a pair of them that encodes one character.
    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let first = self.code_unit()?;
        let units = if (0xd800..0xdc00).contains(&first) && self.take("\\") {
            vec![first, self.code_unit()?]
        } else {
            vec![first]
        };
        match char::decode_utf16(units).collect::<Result<Vec<_>, _>>().as_deref() {
            Ok([c]) => Ok(*c),
            _ => self.fail("paired surrogates"),
        }
    }

    fn code_unit(&mut self) -> Result<u16, JsonError> {
        let digits = self.rest().strip_prefix('u').and_then(|rest| rest.get(..4));
        let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(unit) = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) else {
            return self.fail("u and four hexadecimal digits");
        };
        self.at += 5;
        Ok(unit)
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.at;
        self.take("-");
        let whole = self.digits();
        if whole == 0 || (whole > 1 && self.text[self.at - whole..].starts_with('0')) {
            self.at = start;
            return self.fail("a value");
        }
        let mut is_float = false;
        if self.take(".") {
            is_float = true;
            if self.digits() == 0 {
                return self.fail("a digit");
            }
        }
        if self.take("e") || self.take("E") {
            is_float = true;
            let _ = self.take("+") || self.take("-");
            if self.digits() == 0 {
                return self.fail("a digit");
            }
        }
        let literal = &self.text[start..self.at];
        if is_float {
            let value: f64 = literal.parse().expect("the grammar above is a subset of Rust's");
            return Ok(Json::Atom(python_float(value)));
        }
        if whole > DIGITS_MAX {
            return self.fail("at most 4300 digits");
        }
        Ok(Json::Atom(if literal == "-0" { "0".into() } else { literal.into() }))
    }

    fn digits(&mut self) -> usize {
        let rest = self.rest();
        let count = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        self.at += count;
        count
    }
}

impl<'de> Deserialize<'de> for Json {
    /// Only from JSON itself: other formats have lost the digits.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Json::parse(raw.get()).map_err(D::Error::custom)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = RawValue::from_string(self.to_string()).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(text: &str) -> String {
        Json::parse(text).map_or_else(|error| error.to_string(), |json| json.to_string())
    }

    #[test]
    fn written_like_python() {
        let cases = [
            ("{\"b\":1,\"a\":[1,2,{}],\"é\":[]}", "{\"b\": 1, \"a\": [1, 2, {}], \"é\": []}"),
            (" [ true ,false,null ] ", "[true, false, null]"),
            ("\"\\u00e9\\ud83d\\ude42\\/\\u0000\\u001f\\u007f\"", "\"é🙂/\\u0000\\u001f\u{7f}\""),
            ("\"\\b\\f\\n\\r\\t\\\\\\\"\"", "\"\\b\\f\\n\\r\\t\\\\\\\"\""),
            ("{\"a\":1,\"b\":2,\"a\":3}", "{\"a\": 3, \"b\": 2}"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("[-0,-0.0,0.0,1.10,1e5,-3]", "[0, -0.0, 0.0, 1.1, 100000.0, -3]"),
            (
                "[1E16,1e15,0.0001,0.00001,1e400,-1e400,5e-324]",
                "[1e+16, 1000000000000000.0, 0.0001, 1e-05, Infinity, -Infinity, 5e-324]",
            ),
            ("[123456789.123456789,1.5e300,NaN]", "[123456789.12345679, 1.5e+300, NaN]"),
        ];
        for (text, expected) in cases {
            assert_eq!(again(text), expected);
            assert_eq!(again(expected), expected);
        }
    }

    #[test]
    fn damage_is_told() {
        let cases = [
            ("", "json: byte 0: expected a value"),
            ("[1,]", "json: byte 3: expected a value"),
            ("{\"a\" 1}", "json: byte 5: expected `:`"),
            ("{a:1}", "json: byte 1: expected a key"),
            ("01", "json: byte 0: expected a value"),
            ("1.", "json: byte 2: expected a digit"),
            ("1 2", "json: byte 2: expected the end"),
            ("\"\\ud800x\"", "json: byte 7: expected paired surrogates"),
            ("\"a\nb\"", "json: byte 2: expected an escaped control character"),
            ("\"\\u00g0\"", "json: byte 2: expected u and four hexadecimal digits"),
            ("\"abc", "json: byte 4: expected a closing quote"),
        ];
        for (text, expected) in cases {
            assert_eq!(again(text), expected, "{text}");
        }
        assert!(again(&"[".repeat(100_000)).contains("at most 128 levels"));
        assert!(again(&"9".repeat(4301)).contains("at most 4300 digits"));
    }
}
