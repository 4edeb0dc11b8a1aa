//! Sending messages to Objective-C objects: the runtime and the frameworks, opened at run time.
use super::library::{self, functions};
use crate::{Error, Result};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;

/// An object, or nobody.
pub(super) type Id = *mut c_void;
/// A selector.
pub(super) type Sel = *const c_void;

functions! { Runtime:
    class = ["objc_getClass"](*const c_char) -> Id;
    selector = ["sel_registerName"](*const c_char) -> Sel;
    message = ["objc_msgSend"]();
    pool_push = ["objc_autoreleasePoolPush"]() -> *mut c_void;
    pool_pop = ["objc_autoreleasePoolPop"](*mut c_void);
}

functions! { Entry: default_device = ["MTLCreateSystemDefaultDevice"]() -> Id; }

/// The runtime with Metal.
pub(super) struct Objc {
    runtime: Runtime,
    entry: Entry,
    _libraries: Vec<Library>,
}

impl Objc {
    /// Opens the runtime, Foundation and Metal, or the emulator, which is all of them.
    ///
    /// # Errors
    /// They are not there, as on every system but Apple's.
    pub(super) fn open(emulator: Option<&Path>) -> Result<Objc> {
        let paths = match emulator {
            Some(path) => vec![path.display().to_string()],
            None => [
                "/usr/lib/libobjc.A.dylib",
                "/System/Library/Frameworks/Foundation.framework/Foundation",
                "/System/Library/Frameworks/Metal.framework/Metal",
            ]
            .map(str::to_string)
            .to_vec(),
        };
        let open = |path: &String| library::open("Metal", std::slice::from_ref(path));
        let libraries = paths.iter().map(open).collect::<Result<Vec<_>>>()?;
        let (first, last) = (&libraries[0], &libraries[libraries.len() - 1]);
        let (runtime, entry) = (Runtime::find(first, 0)?, Entry::find(last, 0)?);
        Ok(Objc { runtime, entry, _libraries: libraries })
    }

    /// The system's GPU; nobody if it has none. The caller owns it.
    pub(super) fn default_device(&self) -> Id {
        // SAFETY: a function without arguments.
        unsafe { (self.entry.default_device)() }
    }

    /// The class of that name.
    pub(super) fn class(&self, name: &CStr) -> Id {
        // SAFETY: a text that ends with a zero.
        unsafe { (self.runtime.class)(name.as_ptr()) }
    }

    /// The selector of that name.
    pub(super) fn selector(&self, name: &CStr) -> Sel {
        // SAFETY: a text that ends with a zero, which the runtime copies.
        unsafe { (self.runtime.selector)(name.as_ptr()) }
    }

    /// The function that sends a message, as a function of type `F`.
    ///
    /// # Safety
    /// `F` is a pointer to an `extern "C"` function of an object, a selector, and the arguments and
    /// the result of the method that the selector names.
    pub(super) unsafe fn message<F: Copy>(&self) -> F {
        assert_eq!(size_of::<F>(), size_of_val(&self.runtime.message), "a pointer to a function");
        // SAFETY: of the same size; the caller vouches for the type.
        unsafe { std::mem::transmute_copy(&self.runtime.message) }
    }

    /// Sends a message without arguments that answers an object or a number of the same size.
    pub(super) fn ask(&self, object: Id, selector: &CStr) -> usize {
        // SAFETY: all methods that this file's users name here take nothing and answer a word.
        unsafe {
            let send: unsafe extern "C" fn(Id, Sel) -> usize = self.message();
            send(object, self.selector(selector))
        }
    }

    /// Gives an object back.
    pub(super) fn release(&self, object: Id) {
        self.ask(object, c"release");
    }

    /// Runs `work`; what it is given without owning it dies at its end.
    pub(super) fn pooled<T>(&self, work: impl FnOnce() -> T) -> T {
        // SAFETY: pushed and popped in pairs, on one thread.
        let pool = unsafe { (self.runtime.pool_push)() };
        let result = work();
        // SAFETY: as above.
        unsafe { (self.runtime.pool_pop)(pool) };
        result
    }

    /// An `NSString` that lives as long as the pool.
    pub(super) fn string(&self, text: &str) -> Result<Id> {
        let text = CString::new(text).map_err(|e| Error::Device(format!("a text for Metal: {e}")))?;
        // SAFETY: the method takes a text that ends with a zero and copies it.
        let string = unsafe {
            let send: unsafe extern "C" fn(Id, Sel, *const c_char) -> Id = self.message();
            send(self.class(c"NSString"), self.selector(c"stringWithUTF8String:"), text.as_ptr())
        };
        if string.is_null() {
            Err(Error::Device("a text for Metal is not UTF-8".to_string()))
        } else {
            Ok(string)
        }
    }

    /// The text of an `NSString`; empty for nobody.
    pub(super) fn text(&self, string: Id) -> String {
        let bytes = self.ask(string, c"UTF8String") as *const c_char;
        if bytes.is_null() {
            return String::new();
        }
        // SAFETY: not null; the string owns the bytes, which end with a zero.
        unsafe { CStr::from_ptr(bytes) }.to_string_lossy().into_owned()
    }

    /// What an `NSError` says.
    pub(super) fn reason(&self, error: Id) -> String {
        self.text(self.ask(error, c"localizedDescription") as Id)
    }
}
