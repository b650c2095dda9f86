// Command replicas tells how two replicas share revocations: two real `sallyport serve` processes over a real
// redis-server, each with a data directory of its own, the Redis stopped, killed and brought back empty. Every step prints what is
// done and what is answered. The test of this package plays the same story and fails at the first thing that is not as told.
package main
