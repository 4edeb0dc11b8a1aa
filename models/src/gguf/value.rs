//! Metadata values and typed access to them.
use crate::{Error, Result};
use std::collections::BTreeMap;

/// A metadata value.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Type 0.
    U8(u8),
    /// Type 1.
    I8(i8),
    /// Type 2.
    U16(u16),
    /// Type 3.
    I16(i16),
    /// Type 4.
    U32(u32),
    /// Type 5.
    I32(i32),
    /// Type 6.
    F32(f32),
    /// Type 7.
    Bool(bool),
    /// Type 8.
    Str(String),
    /// Type 9, of values that all have the type with this number.
    Array(u32, Vec<Value>),
    /// Type 10.
    U64(u64),
    /// Type 11.
    I64(i64),
    /// Type 12.
    F64(f64),
}

/// The number of the array type.
pub(super) const ARRAY: u32 = 9;
/// The number of the string type.
pub(super) const STRING: u32 = 8;

impl Value {
    /// A string value.
    pub fn str(text: &str) -> Value {
        Value::Str(text.to_owned())
    }

    /// An array of 32-bit unsigned integers.
    pub fn u32s(values: &[u32]) -> Value {
        Value::Array(4, values.iter().map(|v| Value::U32(*v)).collect())
    }

    /// An array of 32-bit integers.
    pub fn i32s(values: &[i32]) -> Value {
        Value::Array(5, values.iter().map(|v| Value::I32(*v)).collect())
    }

    /// An array of 32-bit floats.
    pub fn f32s(values: &[f32]) -> Value {
        Value::Array(6, values.iter().map(|v| Value::F32(*v)).collect())
    }

    /// An array of strings.
    pub fn strings(values: &[String]) -> Value {
        Value::Array(STRING, values.iter().cloned().map(Value::Str).collect())
    }

    /// The number of the value's type.
    pub(super) fn number(&self) -> u32 {
        match self {
            Value::U8(_) => 0,
            Value::I8(_) => 1,
            Value::U16(_) => 2,
            Value::I16(_) => 3,
            Value::U32(_) => 4,
            Value::I32(_) => 5,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::Str(_) => STRING,
            Value::Array(..) => ARRAY,
            Value::U64(_) => 10,
            Value::I64(_) => 11,
            Value::F64(_) => 12,
        }
    }

    /// The value as a whole number that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(n) => Some(n.into()),
            Value::U16(n) => Some(n.into()),
            Value::U32(n) => Some(n.into()),
            Value::U64(n) => Some(n),
            Value::I8(n) => n.try_into().ok(),
            Value::I16(n) => n.try_into().ok(),
            Value::I32(n) => n.try_into().ok(),
            Value::I64(n) => n.try_into().ok(),
            _ => None,
        }
    }

    /// The value as a number. A 32-bit float stands for the decimal it was written as: the 1e-6
    /// of a GGUF is the 1e-6 of a `config.json`.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(x) => x.to_string().parse().ok(),
            Value::F64(x) => Some(x),
            _ => self.as_u64().map(|n| n as f64),
        }
    }

    /// The value as text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// What messages say of the value.
    fn describe(&self) -> String {
        match self {
            Value::Array(_, values) => format!("an array of {}", values.len()),
            Value::Str(text) => format!("{text:?}"),
            Value::Bool(b) => b.to_string(),
            Value::F32(x) => x.to_string(),
            Value::F64(x) => x.to_string(),
            Value::I8(n) => n.to_string(),
            Value::I16(n) => n.to_string(),
            Value::I32(n) => n.to_string(),
            Value::I64(n) => n.to_string(),
            other => other.as_u64().map_or(String::new(), |n| n.to_string()),
        }
    }
}

/// The metadata of a file by key.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Metadata(pub BTreeMap<String, Value>);

impl Metadata {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    pub(super) fn wrong<T>(&self, key: &str, expected: &str) -> Result<T> {
        let got = self.get(key).map_or("nothing".to_owned(), Value::describe);
        Err(Error::config(key, expected, got))
    }

    /// The value of a key, or the value that all layers share where it is given per layer.
    fn uniform(&self, key: &str) -> Result<Option<&Value>> {
        match self.get(key) {
            Some(Value::Array(_, values)) => match values.split_first() {
                Some((first, rest)) if rest.iter().all(|v| v == first) => Ok(Some(first)),
                Some(_) => self.wrong(key, "the same value for all layers"),
                None => self.wrong(key, "a value per layer"),
            },
            value => Ok(value),
        }
    }

    /// A whole number below 2^32.
    pub(super) fn u32(&self, key: &str) -> Result<u32> {
        match self.uniform(key)?.and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()) {
            Some(n) => Ok(n),
            None => self.wrong(key, "a whole number below 2^32"),
        }
    }

    /// A whole number, or `usual` where the key is absent.
    pub(super) fn u32_or(&self, key: &str, usual: u32) -> Result<u32> {
        if self.get(key).is_some() { self.u32(key) } else { Ok(usual) }
    }

    /// A number.
    pub(super) fn f64(&self, key: &str) -> Result<f64> {
        match self.uniform(key)?.and_then(Value::as_f64) {
            Some(x) => Ok(x),
            None => self.wrong(key, "a number"),
        }
    }

    /// A number, or `usual` where the key is absent.
    pub(super) fn f64_or(&self, key: &str, usual: f64) -> Result<f64> {
        if self.get(key).is_some() { self.f64(key) } else { Ok(usual) }
    }

    /// An array of whole numbers below 2^32.
    pub(super) fn u32s(&self, key: &str) -> Result<Vec<u32>> {
        let Some(Value::Array(_, values)) = self.get(key) else {
            return self.wrong(key, "an array");
        };
        let number = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        match values.iter().map(number).collect() {
            Some(numbers) => Ok(numbers),
            None => self.wrong(key, "an array of whole numbers below 2^32"),
        }
    }

    /// Takes an array of strings out.
    pub(super) fn take_strings(&mut self, key: &str) -> Option<Vec<String>> {
        let Some(Value::Array(STRING, _)) = self.get(key) else { return None };
        let Some(Value::Array(_, values)) = self.0.remove(key) else { return None };
        let text = |v| match v {
            Value::Str(text) => Some(text),
            _ => None,
        };
        values.into_iter().map(text).collect()
    }
}
