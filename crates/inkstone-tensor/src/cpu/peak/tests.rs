use crate::{DType, Device, cpu};

fn counted(isa: &str, operands: DType, threads: usize) -> Option<f64> {
    let options = cpu::Options { threads: Some(threads), isa: Some(isa.into()) };
    Device::cpu(&options).unwrap().multiply_registers(operands, 1000)
}

#[cfg(target_arch = "x86_64")]
#[test]
fn every_table_counts_its_multiply_adds() {
    for isa in cpu::Cpu::available() {
        let (lanes, sums) = match isa {
            "avx512" | "avx512bf16" => (16.0, 16.0),
            "avx2" => (8.0, 12.0),
            _ => (4.0, 14.0),
        };
        assert_eq!(counted(isa, DType::F32, 1), Some(1000.0 * lanes * sums), "{isa}");
        let pairs = if isa == "avx512bf16" { 2.0 } else { 1.0 };
        assert_eq!(counted(isa, DType::Bf16, 1), Some(1000.0 * lanes * sums * pairs), "{isa}");
        let int8 = match isa {
            "avx512" | "avx512bf16" if super::has_int8() => Some(64.0 * 16.0),
            "avx512" | "avx512bf16" | "avx2" => Some(16.0 * 12.0),
            _ => None,
        };
        assert_eq!(counted(isa, DType::I8, 1), int8.map(|products| 1000.0 * products), "{isa}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn threads_count_together() {
    assert_eq!(counted("scalar", DType::F32, 3), Some(3.0 * 56_000.0));
}

#[test]
fn there_is_no_peak_of_types_that_are_only_stored() {
    assert_eq!(counted("scalar", DType::I64, 1), None);
    assert_eq!(counted("scalar", DType::I8, 1), None);
}
