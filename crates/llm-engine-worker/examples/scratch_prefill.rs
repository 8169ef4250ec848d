use llama_cpp_2::{context::params::*, llama_backend::LlamaBackend, llama_batch::LlamaBatch, model::{LlamaModel, params::LlamaModelParams}, sampling::LlamaSampler};
use std::num::NonZeroU32; use std::time::Instant;
fn main() {
    llama_cpp_2::send_logs_to_tracing(llama_cpp_2::LogOptions::default().with_logs_enabled(false));
    let be = LlamaBackend::init().unwrap();
    let m = LlamaModel::load_from_file(&be, "/tmp/model/smollm2.gguf", &LlamaModelParams::default()).unwrap();
    let toks = m.vocab().tokenize("The sky is blue and the grass is green. ".repeat(60).as_bytes(), true, true);
    let rss = || std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmRSS")).unwrap().to_owned();
    for fa in [-1i32, 0, 1] { for th in [1,2] { for ub in [4u32, 8, 16, 32, 64, 128, 512] {
        let p = LlamaContextParams::default().with_n_ctx(NonZeroU32::new(8192)).with_n_seq_max(4).with_n_batch(ub).with_n_ubatch(ub).with_n_threads(th).with_n_threads_batch(th).with_flash_attention_policy(fa);
        let mut c = m.new_context(&be, p).unwrap();
        let mut b = LlamaBatch::new(512, 1);
        let n = 256usize.max(ub as usize);
        let mut ts = vec![];
        for _ in 0..2 { let t = Instant::now();
        for (k, ch) in toks[..n].chunks(ub as usize).enumerate() { b.clear(); for (i, &x) in ch.iter().enumerate() { b.add(x, (k*ub as usize+i) as i32, &[0], false).unwrap(); } c.decode(&mut b).unwrap(); }
        ts.push(t.elapsed().as_secs_f64()*1e3/n as f64); c.clear_kv_cache(); }
        // decode with s sequences
        let mut ds = vec![];
        for s in [1, 4] { if ub < s as u32 {continue;}
            let mut sm = LlamaSampler::greedy();
            let t = Instant::now(); let mut tok = vec![toks[0]; s];
            for pos in 0..32 { b.clear(); for q in 0..s { b.add(tok[q], pos, &[q as i32], true).unwrap(); } c.decode(&mut b).unwrap(); for q in 0..s { tok[q] = sm.sample(&c, q as i32); } }
            ds.push(t.elapsed().as_secs_f64()*1e3/32.0); c.clear_kv_cache(); }
        println!("fa {fa} threads {th} ub {ub}: prefill ms/token {ts:.2?} decode step ms 1,4: {ds:.2?} {}", rss());
    } } }
}
