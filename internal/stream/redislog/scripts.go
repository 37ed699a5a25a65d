package redislog

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/rueidis"

	"weir/internal/stream"
)

var (
	//go:embed common.lua
	commonLua string
	//go:embed create.lua
	createLua string
	//go:embed append.lua
	appendLua string
	//go:embed seal.lua
	sealLua string
	//go:embed delete.lua
	deleteLua string
	//go:embed book.lua
	bookLua string
	//go:embed renew.lua
	renewLua string
	//go:embed reap.lua
	reapLua string
)

// A script that only ends things runs when the server's memory is full, too:
// else a full server would keep its streams running for ever.
const (
	whenRoom = "#!lua\n"
	whenFull = "#!lua flags=allow-oom\n"
)

// All but append may be sent again when their answer was lost; append's sender
// does that itself, with what is to be appended by then.
var (
	createScript = rueidis.NewLuaScriptRetryable(whenRoom + createLua)
	appendScript = rueidis.NewLuaScript(whenRoom + appendLua)
	sealScript   = rueidis.NewLuaScriptRetryable(whenFull + commonLua + sealLua)
	deleteScript = rueidis.NewLuaScriptRetryable(whenFull + deleteLua)
	bookScript   = rueidis.NewLuaScriptRetryable(whenFull + bookLua)
	renewScript  = rueidis.NewLuaScriptRetryable(whenFull + renewLua)
	reapScript   = rueidis.NewLuaScriptRetryable(whenFull + commonLua + reapLua)
)

// within makes a call to the server that is over when ctx is. The client alone
// does not see to that: whoever finds no connection waits for another's attempt
// to make one, and for its ctx.
func within[T any](ctx context.Context, s *Store, call func() T) (result T, err error) {
	s.mu.Lock()
	if s.isClosed() {
		s.mu.Unlock()
		return result, errClosed
	}
	s.calls.Add(1)
	s.mu.Unlock()
	answered := make(chan T, 1)
	go func() {
		defer s.calls.Done()
		answered <- call()
	}()
	select {
	case result = <-answered:
		return result, nil
	case <-ctx.Done():
		return result, fmt.Errorf("%w: %w", stream.ErrUnavailable, context.Cause(ctx))
	}
}

// ask sends one command.
func (s *Store) ask(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	result, err := within(ctx, s, func() rueidis.RedisResult { return s.client.Do(ctx, command) })
	if err != nil {
		return rueidis.NewErrorResult(err)
	}
	return result
}

// run runs a script that answers with a word and what belongs to it.
func (s *Store) run(ctx context.Context, script *rueidis.Lua, keys, args []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := s.exec(ctx, script, keys, args).AsStrSlice()
	if err == nil && len(answer) == 0 {
		err = errors.New("the script's answer is empty")
	}
	if err != nil {
		return nil, storeError(err)
	}
	return answer, nil
}

func (s *Store) exec(ctx context.Context, script *rueidis.Lua, keys, args []string) rueidis.RedisResult {
	result, err := within(ctx, s, func() rueidis.RedisResult { return script.Exec(ctx, s.client, keys, args) })
	if err != nil {
		return rueidis.NewErrorResult(err)
	}
	return result
}

// storeError says in the terms of the contract why a call failed.
func storeError(err error) error {
	if answer, ok := rueidis.IsRedisErr(err); ok && strings.HasPrefix(answer.Error(), "OOM") {
		return fmt.Errorf("%w: %w", stream.ErrFull, err)
	}
	if errors.Is(err, stream.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", stream.ErrUnavailable, err)
}
