//! What is written about requests and about the proxy itself.
