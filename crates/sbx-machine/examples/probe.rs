//! Prints the accelerator verdict: `probe KERNEL CACHE_DIR`.
#![expect(clippy::print_stdout, reason = "an example for people")]

use sbx_machine::probe::{Request, choose};
use std::path::Path;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, kernel, cache] = args.as_slice() else {
        return Err("KERNEL CACHE_DIR".into());
    };
    let (qemu, kernel) = (Path::new("/usr/bin/qemu-system-x86_64"), Path::new(kernel));
    let request = Request {
        qemu,
        kernel,
        kernel_id: "example",
        cache: Path::new(cache),
        wanted: None,
    };
    let started = std::time::Instant::now();
    println!("{:?} in {:?}", choose(&request).await?, started.elapsed());
    Ok(())
}
