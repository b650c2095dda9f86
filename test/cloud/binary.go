package cloud

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/sallyport-sts/sallyport/test/built"
)

// serverPackage is MinIO, which server/go.mod names as a tool: a module of its own, so that nothing of ours is linked with it (it is
// under the AGPL).
const serverPackage = "github.com/minio/minio"

// Binary returns the path of the server, and builds it on the first call (four minutes of CPU time). The working directory has to be
// that of this package.
func Binary(ctx context.Context, log io.Writer) (string, error) {
	version, err := exec.CommandContext(ctx, "go", "-C", "server", "list", "-m", "-f", "{{.Version}}", serverPackage).Output()
	if err != nil {
		return "", fmt.Errorf("finding the version of MinIO (run this in test/cloud): %w", err)
	}
	return built.Once(ctx, log, "minio-"+strings.TrimSpace(string(version)), func(ctx context.Context, to string) error {
		compile := exec.CommandContext(ctx, "go", "-C", "server", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, serverPackage)
		compile.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		compile.Stdout, compile.Stderr = log, log
		return compile.Run()
	})
}
