use crate::support::World;

#[test]
fn an_image_comes_back_as_it_went_in() {
    let world = World::new();
    let disk = world.disk("disk", &[1, 0, 2, 2, 0, 3]);
    world.ok(["put".as_ref(), "one".as_ref(), disk.as_os_str()]);
    let out = world.path("out");
    world.ok(["get".as_ref(), "one".as_ref(), out.as_os_str()]);
    assert!(std::fs::read(&disk).unwrap() == std::fs::read(&out).unwrap());
}
