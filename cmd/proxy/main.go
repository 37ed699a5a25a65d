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
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "health":
			return health(os.Environ())
		case "log":
			return readLog(os.Args[2:], os.Environ(), os.Stdout, os.Stderr)
		}
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

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go obeySignals(cancel)
	if err := serve(ctx, cfg, newLogger(os.Stderr)); err != nil {
		fmt.Fprintln(os.Stderr, "weir:", err)
		return 1
	}
	return 0
}

// obeySignals drains the proxy at the first signal and ends it at once at the
// second. It runs as long as the process does.
func obeySignals(drain context.CancelFunc) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	<-signals
	drain()
	<-signals
	fmt.Fprintln(os.Stderr, "weir: ended at once; running generations were cut off")
	os.Exit(130)
}
