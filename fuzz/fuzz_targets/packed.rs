#![no_main]

inkstone_fuzz::target!("packed");
