package keys

import (
	"context"
	"fmt"
	"path/filepath"
)

// Restore puts the document that is in dir (a replica's copy, or the keys of a deployment that had one replica) into
// a shared store that has none, or an older one of the same deployment. What dir has must be the newest that its
// replica saw (ErrRollback).
func Restore(ctx context.Context, dir string, store Store, s Sealer) error {
	sealed, _, err := NewFile(dir).Load(ctx)
	if err != nil {
		return fmt.Errorf("reading the copy: %w", err)
	}
	if sealed == nil {
		return fmt.Errorf("%w: there is no copy in %s; try the data_dir of another replica", ErrMissing, dir)
	}
	doc, _, err := s.document(sealed)
	if err != nil {
		return err
	}
	if err := checkSeen(filepath.Join(dir, seenName), doc); err != nil {
		return err
	}
	there, revision, err := store.Load(ctx)
	if err != nil {
		return fmt.Errorf("reading keys: %w", err)
	}
	if there != nil {
		other, _, err := s.document(there)
		if err != nil {
			return fmt.Errorf("the store has keys already: %w", err)
		}
		if err := doc.notBefore(other); err != nil {
			return err
		}
		if doc.Serial == other.Serial {
			return fmt.Errorf("%w: the store has them as they are here", ErrConflict)
		}
	}
	if _, err := store.Swap(ctx, revision, sealed); err != nil {
		return fmt.Errorf("writing keys: %w", err)
	}
	return nil
}
