//! What the supervisor promises about processes, files and a hostile guest; machines boot in `/tests`.

mod chain;
mod hostile;
mod lab;
