//! Who polls, and at what cost?
