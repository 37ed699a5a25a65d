// Command proxy is Weir: it takes a prompt, calls a model API, writes the
// answer into a log, and relays the log as Server-Sent Events.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"weir/internal/config"
)

func main() {
	os.Exit(run())
}

func run() int {
	if len(os.Args) > 1 && os.Args[1] == "health" {
		return health(os.Environ())
	}
	cfg, err := config.Load(os.Args[1:], os.Environ(), os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 2
	case cfg.Version:
		fmt.Println("weir", version())
		return 0
	}

	// The first signal drains, the second one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := serve(ctx, cfg, newLogger(os.Stderr)); err != nil {
		fmt.Fprintln(os.Stderr, "weir:", err)
		return 1
	}
	return 0
}
