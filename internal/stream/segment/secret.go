package segment

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Secret returns a random text that was made once for this directory and is
// kept in it, for whoever opens it next.
func (s *Store) Secret(context.Context) (string, error) {
	path := filepath.Join(s.dir, "secret")
	data, err := os.ReadFile(path)
	if err == nil && len(data) > 0 {
		return string(data), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("segment: read the secret: %w", err)
	}
	secret := rand.Text()
	if err := writeWhole(path, []byte(secret)); err != nil {
		return "", fmt.Errorf("segment: keep the secret: %w", err)
	}
	return secret, nil
}

// writeWhole makes a file that is there whole or not at all, for this user alone.
func writeWhole(path string, data []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
