// Package docs holds the tests that run the documentation: shell blocks are executed in order, configuration
// blocks are loaded, Go blocks stand in examples, make targets, links and the tests that are named must exist.
package docs
