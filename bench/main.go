// Command bench compares Weir with proxies that keep nothing: nginx, and Go's
// own reverse proxy. docs/performance.md says how, and how to read the result.
//
//	go run ./bench             the comparison
//	go run ./bench load        a load on whatever runs; prints JSON
//	go run ./bench upstream    the mock model API
//	go run ./bench passthrough Go's reverse proxy
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"weir/bench/internal/compare"
	"weir/bench/internal/load"
	"weir/bench/internal/passthrough"
	"weir/bench/internal/process"
	"weir/bench/internal/upstream"
)

// openFiles is enough for 9,000 streams, which are two descriptors each in a
// proxy, and what many systems let one have.
const openFiles = 20_000

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	command := "compare"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	var action func(context.Context) error
	switch command {
	case "compare":
		action = compareCommand(flags)
	case "load":
		action = loadCommand(flags)
	case "upstream":
		action = upstreamCommand(flags)
	case "passthrough":
		action = passthroughCommand(flags)
	default:
		return fmt.Errorf("no command %q: compare, load, upstream or passthrough", command)
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s takes no argument %q", command, flags.Arg(0))
	}
	if err := process.RaiseFileLimit(openFiles); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	return action(ctx)
}

func compareCommand(flags *flag.FlagSet) func(context.Context) error {
	o := compare.Register(flags)
	return func(ctx context.Context) error { return compare.Run(ctx, o, os.Stdout) }
}

func loadCommand(flags *flag.FlagSet) func(context.Context) error {
	o := load.Options{Target: netip.MustParseAddrPort("127.0.0.1:8080"), Mode: load.Chat}
	flags.TextVar(&o.Target, "target", o.Target, "address of the proxy, or of the upstream itself")
	flags.StringVar((*string)(&o.Mode), "mode", string(o.Mode), "chat, ids, native, readers or idle")
	flags.IntVar(&o.Streams, "streams", 200, "streams; readers of the one stream with -mode readers")
	flags.DurationVar(&o.Gap, "gap", 20*time.Millisecond, "between the tokens of a stream")
	flags.DurationVar(&o.Ramp, "ramp", time.Second, "over which the streams are opened")
	flags.DurationVar(&o.Settle, "settle", 300*time.Millisecond, "between the last opening and the window")
	flags.DurationVar(&o.Window, "window", 3*time.Second, "in which is measured")
	flags.IntVar(&o.Process, "pid", 0, "process whose tree's CPU time and memory is measured")
	flags.IntVar(&o.Source, "upstream-pid", 0, "process of the upstream, for its CPU time")
	from := flags.Int("addresses", 4, "how many addresses of 127.0.0.0/8 to come from")
	return func(ctx context.Context) error {
		for i := range *from {
			o.From = append(o.From, netip.AddrFrom4([4]byte{127, 0, 2, byte(i + 1)}))
		}
		result, err := load.Run(ctx, o)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(result)
	}
}

func upstreamCommand(flags *flag.FlagSet) func(context.Context) error {
	var o upstream.Options
	flags.DurationVar(&o.Tick, "tick", compare.DefaultTick, "what is due within one is sent together")
	listen := flags.String("listen", "127.0.0.1:9000", "addresses, comma separated; on a port of 0 they choose their own")
	return func(ctx context.Context) error {
		for text := range strings.SplitSeq(*listen, ",") {
			addr, err := netip.ParseAddrPort(text)
			if err != nil {
				return err
			}
			if !addr.Addr().Is4() || !addr.Addr().IsLoopback() {
				return fmt.Errorf("%v is no IPv4 loopback address", addr)
			}
			o.Listen = append(o.Listen, addr)
		}
		return upstream.Run(ctx, o, func(at []netip.AddrPort) { fmt.Println("listening on", at) })
	}
}

func passthroughCommand(flags *flag.FlagSet) func(context.Context) error {
	listen := flags.String("listen", "127.0.0.1:8080", "address")
	to := flags.String("to", "http://127.0.0.1:9000", "the upstream's URL")
	return func(ctx context.Context) error { return passthrough.Run(ctx, *listen, *to) }
}
