#![no_main]

inkstone_fuzz::target!("gguf");
