//! Typed reading of a JSON object; errors name the key with the objects it lies in.
use crate::{Error, Result};
use serde_json::{Map, Value};

/// An object of the configuration and where it lies.
pub(super) struct Fields<'a> {
    pub(super) map: &'a Map<String, Value>,
    pub(super) prefix: &'static str,
}

impl<'a> Fields<'a> {
    /// The whole name of a key.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Whether the key is there and not null.
    pub(super) fn present(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|v| !v.is_null())
    }

    fn wrong<T>(&self, key: &str, expected: &str) -> Result<T> {
        let got = self.map.get(key).map_or("nothing".to_owned(), Value::to_string);
        Err(Error::config(self.key(key), expected, got))
    }

    /// A whole number; `4.0` is one.
    pub(super) fn u32(&self, key: &str) -> Result<u32> {
        let value = self.map.get(key);
        let whole = value.and_then(Value::as_u64).or_else(|| {
            let x = value?.as_f64()?;
            (x.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&x)).then_some(x as u64)
        });
        match whole.and_then(|n| u32::try_from(n).ok()) {
            Some(n) => Ok(n),
            None => self.wrong(key, "a whole number below 2^32"),
        }
    }

    /// A whole number, or `usual` where the key is absent or null.
    pub(super) fn u32_or(&self, key: &str, usual: u32) -> Result<u32> {
        if self.present(key) { self.u32(key) } else { Ok(usual) }
    }

    /// A number.
    pub(super) fn f64(&self, key: &str) -> Result<f64> {
        match self.map.get(key).and_then(Value::as_f64) {
            Some(x) => Ok(x),
            None => self.wrong(key, "a number"),
        }
    }

    /// A number, or `usual` where the key is absent or null.
    pub(super) fn f64_or(&self, key: &str, usual: f64) -> Result<f64> {
        if self.present(key) { self.f64(key) } else { Ok(usual) }
    }

    /// A list whose entries `read` accepts, `None` where the key is absent or null.
    pub(super) fn list<T>(&self, key: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<Vec<T>>> {
        if !self.present(key) {
            return Ok(None);
        }
        let Some(Value::Array(values)) = self.map.get(key) else {
            return self.wrong(key, "a list");
        };
        let entry = |(i, v): (usize, &Value)| {
            read(v)
                .ok_or_else(|| Error::config(format!("{}[{i}]", self.key(key)), "another kind of entry", v))
        };
        values.iter().enumerate().map(entry).collect::<Result<_>>().map(Some)
    }

    /// An object inside this one, `None` where the key is absent or null.
    pub(super) fn nested(&self, key: &str, prefix: &'static str) -> Result<Option<Fields<'a>>> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { map, prefix })),
            Some(_) => self.wrong(key, "an object"),
        }
    }

    /// One of the known objects of a configuration.
    pub(super) fn object(&self, key: &'static str) -> Result<Option<Fields<'a>>> {
        let prefix = match key {
            "rope_scaling" => "rope_scaling.",
            "rope_parameters" => "rope_parameters.",
            "compress_rates" => "compress_rates.",
            _ => "quantization_config.",
        };
        self.nested(key, prefix)
    }

    /// Refuses any value but the one given, spelled as compact JSON. Absent is fine.
    pub(super) fn fixed(&self, key: &str, allowed: &str) -> Result<()> {
        match self.map.get(key) {
            Some(value) if format!("{value}").as_str() != allowed => self.wrong(key, allowed),
            _ => Ok(()),
        }
    }
}
