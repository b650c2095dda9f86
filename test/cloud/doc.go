// Package cloud tests the brokers of clouds through the vendors' own clients: their SDKs for Go, and their command lines. Where a real
// server of the same API can run, it is used: MinIO stands for AWS STS and S3. It is a module of its own, so that no cloud SDK is
// among the dependencies of the product.
package cloud
