//! Number formats: how the bytes of a row become numbers and back (spec 4.4, 6.2).
