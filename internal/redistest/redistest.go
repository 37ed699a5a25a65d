// Package redistest runs a real Redis server for tests, one that can be killed,
// stopped in its tracks and emptied.
package redistest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Config of a server. The zero value keeps nothing on disk.
type Config struct {
	// AOF is "everysec" or "always" for a log on disk with that fsync; empty
	// for none.
	AOF string
	// MaxMemory bounds the data, as the setting of that name; empty for no
	// bound. Nothing is evicted.
	MaxMemory string
	// Args are further command line settings, such as "--requirepass", "x".
	Args []string
}

// Server is a running server, or one that was stopped.
type Server struct {
	t      testing.TB
	binary string
	config Config
	port   int
	dir    string

	mu     sync.Mutex
	cmd    *exec.Cmd     // guarded by mu; nil while it does not run
	exited chan struct{} // guarded by mu; closed when cmd has ended
}

// startWait is how long a server may take to answer.
const startWait = 20 * time.Second

// Start runs a server until the test ends. Where none is installed the test is
// skipped.
func Start(t testing.TB, c Config) *Server {
	t.Helper()
	binary := find()
	if binary == "" {
		t.Skip("redis-server is not installed (apt-get install redis-tools)")
	}
	s := &Server{t: t, binary: binary, config: c, port: FreePort(t), dir: t.TempDir()}
	t.Cleanup(s.Kill)
	s.Start()
	return s
}

// find returns the server's program. Debian's redis-tools has it too, as one of
// its tools: it goes by the name that it is called with.
func find() string {
	for _, name := range []string{"redis-server", "valkey-server", "redis-check-rdb"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// FreePort returns a port that a client can't be given for a connection of its
// own while the server is away: one that goes on dialling might get it, and be
// connected to itself.
func FreePort(t testing.TB) int {
	t.Helper()
	for {
		port := 10000 + rand.IntN(20000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			if t.Context().Err() != nil {
				t.Fatalf("find a port: %v", err)
			}
			continue
		}
		_ = l.Close()
		return port
	}
}

// URL of the server.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Addr of the server.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// PID of the running server; 0 when it does not run.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return 0
	}
	return s.cmd.Process.Pid
}

// Start runs the server again, on the same port and data, and waits until it
// answers.
func (s *Server) Start() {
	s.t.Helper()
	args := []string{
		"redis-server", "--port", fmt.Sprint(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--save", "",
		"--logfile", filepath.Join(s.dir, "log"), "--maxmemory-policy", "noeviction",
	}
	if s.config.AOF != "" {
		args = append(args, "--appendonly", "yes", "--appendfsync", s.config.AOF)
	}
	if s.config.MaxMemory != "" {
		args = append(args, "--maxmemory", s.config.MaxMemory)
	}
	cmd := exec.Command(s.binary)
	cmd.Args = append(args, s.config.Args...)
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start redis-server: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // killed, mostly
		close(exited)
	}()
	s.mu.Lock()
	s.cmd, s.exited = cmd, exited
	s.mu.Unlock()
	s.awaitAnswer(exited)
}

// awaitAnswer waits until the server has loaded its data. It may refuse what
// it is asked for want of a password, which is an answer.
func (s *Server) awaitAnswer(exited <-chan struct{}) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := s.ask(ctx, "PING")
		if err == nil && !strings.HasPrefix(answer, "-LOADING") {
			return
		}
		select {
		case <-tick.C:
		case <-exited:
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			s.t.Fatalf("redis-server ended at once:\n%s", log)
		case <-ctx.Done():
			s.t.Fatalf("redis-server does not answer: %v", err)
		}
	}
}

// ask sends one inline command, and returns the first line of the answer.
func (s *Server) ask(ctx context.Context, command string) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Addr())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// FlushAll empties the server.
func (s *Server) FlushAll() { s.Command("FLUSHALL") }

// Command has the server do something that it answers with OK.
func (s *Server) Command(command string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	if answer, err := s.ask(ctx, command); err != nil || answer != "+OK" {
		s.t.Fatalf("%s: %q, %v", command, answer, err)
	}
}

// Snapshot copies what the server has on disk, to go back to.
func (s *Server) Snapshot() (dir string) {
	s.t.Helper()
	dir = s.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(s.dir)); err != nil {
		s.t.Fatalf("copy the server's data: %v", err)
	}
	return dir
}

// Rollback kills the server and starts it again with the data of a snapshot, as
// a failover does to a replica that lags.
func (s *Server) Rollback(snapshot string) {
	s.t.Helper()
	s.Kill()
	s.dir = snapshot
	s.Start()
}

// Stop ends the server as an operator does, and waits for that.
func (s *Server) Stop() { s.end(os.Interrupt) }

// Kill ends the server as a power cut does for a process, and waits for that.
func (s *Server) Kill() { s.end(os.Kill) }

func (s *Server) end(signal os.Signal) {
	s.mu.Lock()
	cmd, exited := s.cmd, s.exited
	s.cmd = nil
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	if err := cmd.Process.Signal(signal); err != nil {
		s.t.Logf("end redis-server: %v", err)
	}
	<-exited
}
