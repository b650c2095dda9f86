// Command build makes sure that the S3 server of the tests exists: it builds it into the user's cache directory and
// prints its path. It has its own command because the first build takes longer than the time limit of "go test".
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/sallyport-sts/sallyport/test/cloud"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	path, err := cloud.Binary(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/cloud:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
