pub fn for_pull(_: bool) {}
