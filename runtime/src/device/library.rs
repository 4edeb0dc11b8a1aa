//! Opening a driver's library and finding its functions.
use crate::{Error, Result};
use libloading::Library;

/// Opens the first of `names` that is there.
///
/// # Errors
/// None is; the message has all names and the loader's last reason.
pub(super) fn open(what: &str, names: &[String]) -> Result<Library> {
    let mut reason = String::new();
    for name in names {
        // SAFETY: the libraries named here are drivers and compilers of GPUs, or the emulator built by
        // this crate; their initialisers may be run.
        match unsafe { Library::new(name) } {
            Ok(library) => return Ok(library),
            Err(why) => reason = why.to_string(),
        }
    }
    Err(Error::Device(format!("{what}: expected one of {}, found none ({reason})", names.join(", "))))
}

/// Declares a struct of function pointers and a function that finds them all in a library. Where two
/// libraries have alike functions, both names are given, and `find` is told which to use.
macro_rules! functions {
    ($name:ident: $($field:ident = [$($symbol:literal),+] ($($arg:ty),*) $(-> $ret:ty)?;)*) => {
        struct $name {
            $($field: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
        }

        impl $name {
            fn find(library: &libloading::Library, column: usize) -> crate::Result<$name> {
                // SAFETY: each symbol has the signature that the API's header gives it, and the
                // library stays open as long as the struct, which its owner keeps beside it.
                unsafe {
                    Ok($name { $($field: {
                        let symbol = [$($symbol),+][column];
                        *library.get(symbol.as_bytes()).map_err(|e| {
                            crate::Error::Device(format!("{symbol}: {e}"))
                        })?
                    },)* })
                }
            }
        }
    };
}
pub(super) use functions;
