//! Holds the check that the SDK's bindings are generated from `wit/`; see `tests/`.
