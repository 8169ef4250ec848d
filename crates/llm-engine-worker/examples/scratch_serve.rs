fn main() {
    let a: Vec<String> = std::env::args().collect();
    let mut o = llm_engine_worker::Options::new(a[1].clone().into(), a[2].clone().into(), "m".into());
    if let Some(c) = a.get(3) { o.context_tokens = c.parse().unwrap(); }
    llm_engine_worker::run(o, std::future::pending()).unwrap();
}
