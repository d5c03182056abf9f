use super::*;

#[test]
fn layers_follow_each_other_by_their_numbers() {
    let names = ["b.10.w", "b.2.w", "b.2.a", "b.x.w", "b.10.a", "a.3", "b.2.a.1"];
    let ordered: Vec<&str> = in_order(names.into_iter()).collect();
    assert_eq!(ordered, ["a.3", "b.x.w", "b.2.a", "b.2.a.1", "b.2.w", "b.10.a", "b.10.w"]);
}
