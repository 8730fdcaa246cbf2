# make demo [FRAMES=folder-or-video]   pre-label frames and show them in napari
# make test                            every check
# Both do all the set-up on a fresh Debian machine that has python3, make and git.

PYTHON ?= python3
FRAMES ?= sample_data/frames
OUT ?= demo_output
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A virtual screen where there is no real one; 24 bits of colour, as OpenGL needs.
SCREEN = $(if $(DISPLAY)$(WAYLAND_DISPLAY),,xvfb-run -a -s "-screen 0 1600x1000x24")

.PHONY: demo test lint system clean

demo: $(INSTALLED)
	$(BIN)/microaunet prelabel "$(FRAMES)" --out "$(OUT)" --overlay --overwrite
	$(SCREEN) $(BIN)/python -m napari_microaunet.widgets.demo "$(FRAMES)" \
		$(if $(SCREEN),--screenshot "$(OUT)/window.png")
	@echo "Masks, overlays and confidences: $(OUT)/$(if $(SCREEN), - without a display the window is a picture: $(OUT)/window.png)"

test: $(INSTALLED) lint
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/npe2 validate napari-microaunet

# uv takes seconds where pip takes minutes; it is told of local wheels where pip knows any.
$(INSTALLED): pyproject.toml constraints.txt scripts/system_packages.sh
	sh scripts/system_packages.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	UV_FIND_LINKS="$$($(BIN)/python -m pip config get global.find-links 2>/dev/null)" \
		$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) $(OUT)
