// Package architecture holds the tests that pin the shape of the code: which package may import which, and
// what cannot be written down at all.
package architecture
