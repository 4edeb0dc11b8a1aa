// Everything is in prelude.h.
