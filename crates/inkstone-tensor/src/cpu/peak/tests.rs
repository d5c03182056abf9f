use crate::{DType, Device, cpu};

fn counted(isa: &str, operands: DType, threads: usize) -> Option<f64> {
    let options = cpu::Options { threads: Some(threads), isa: Some(isa.into()) };
    Device::cpu(&options).unwrap().multiply_registers(operands, 1000)
}

#[test]
fn every_table_counts_its_multiply_adds() {
    for isa in cpu::Cpu::available() {
        let (lanes, sums) = match isa {
            "avx512" | "avx512bf16" => (16.0, 16.0),
            "avx2" => (8.0, 12.0),
            _ => (1.0, 16.0),
        };
        assert_eq!(counted(isa, DType::F32, 1), Some(1000.0 * lanes * sums), "{isa}");
        let pairs = if isa == "avx512bf16" { 2.0 } else { 1.0 };
        assert_eq!(counted(isa, DType::Bf16, 1), Some(1000.0 * lanes * sums * pairs), "{isa}");
        if let Some(int8) = counted(isa, DType::I8, 1) {
            assert_eq!(int8, 1000.0 * 64.0 * 16.0, "{isa}");
        }
    }
}

#[test]
fn threads_count_together() {
    assert_eq!(counted("scalar", DType::F32, 3), Some(3.0 * 16_000.0));
}

#[test]
fn there_is_no_peak_of_types_that_are_only_stored() {
    assert_eq!(counted("scalar", DType::I64, 1), None);
    assert_eq!(counted("scalar", DType::I8, 1), None);
}
