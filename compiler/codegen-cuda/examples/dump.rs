//! scratch
use linc_codegen_cuda::{Arch, Options, compile, tile};
fn main() {
    let out = std::env::args().nth(1).unwrap();
    for path in std::env::args().skip(2) {
        let text = std::fs::read_to_string(&path).unwrap();
        let kernel = tile::parse(&text).unwrap();
        let options = Options { arch: Arch::Sm80, alignment: vec![16; kernel.params.len()] };
        match compile(&kernel, &options) {
            Ok(k) => {
                let short: String = k.name.chars().take(150).collect();
                std::fs::write(format!("{out}/{short}.cu"), k.source()).unwrap();
                println!("{} {} {}", k.threads, k.shared_bytes, k.name)
            }
            Err(e) => println!("ERR {e}"),
        }
    }
}
