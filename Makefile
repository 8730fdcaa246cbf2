# make demo [FRAMES=folder-or-video]   pre-label frames and show them in napari
# make test                            every check
# make weights [DATA=folder]           train the bundled models anew (hours; see training/README.md)
# make table [DATA=folder]             compare ways to teach the student (hours)
# All do the set-up on a fresh Debian machine that has python3, make and git; the last two go on
# where they were stopped.

PYTHON ?= python3
FRAMES ?= sample_data/frames
OUT ?= demo_output
DATA ?= ../shared/data
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Where it is set, each of the hundred processes of the tests compiles torch and napari anew.
unexport PYTHONDONTWRITEBYTECODE
# A virtual screen where there is no real one; 24 bits of colour, as OpenGL needs.
SCREEN = $(if $(DISPLAY)$(WAYLAND_DISPLAY),,xvfb-run -a -s "-screen 0 1600x1000x24")

UV_INSTALL = UV_FIND_LINKS="$$($(BIN)/python -m pip config get global.find-links 2>/dev/null)" \
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt

# A file that a failed command left is no finished one.
.DELETE_ON_ERROR:
.PHONY: demo test lint weights table clean

demo: $(INSTALLED)
	$(BIN)/microaunet prelabel "$(FRAMES)" --out "$(OUT)" --overlay --overwrite
	$(SCREEN) $(BIN)/python -m napari_microaunet.widgets.demo "$(FRAMES)" \
		$(if $(SCREEN),--screenshot "$(OUT)/window.png")
	@echo "Masks, overlays and confidences: $(OUT)/$(if $(SCREEN), - without a display the window is a picture: $(OUT)/window.png)"

# Two at a time, a file's tests in one process: files share what is slow to make. In their order, not
# those with most tests first: the few that train in real time would come last, one process idle.
# One thread each: two of them that wait for each other's threads take more than twice the time.
test: export OMP_NUM_THREADS = 1
test: $(INSTALLED) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/npe2 validate napari-microaunet

DATASET := training/cache/dataset/manifest.json
IMAGENET := training/cache/imagenet-expert.safetensors training/cache/imagenet-expert-lite2.safetensors
RUNS := training/runs
BUNDLED := src/napari_microaunet/weights

weights: $(BUNDLED)/student.safetensors $(BUNDLED)/teacher.safetensors $(BUNDLED)/expert.safetensors

$(BUNDLED)/student.safetensors: $(RUNS)/student-fair-plain/model.safetensors
$(BUNDLED)/teacher.safetensors: $(RUNS)/malunet-fair/model.safetensors
$(BUNDLED)/expert.safetensors: $(RUNS)/expert-lite2-again/model.safetensors
$(BUNDLED)/%.safetensors:
	$(BIN)/python training/bundle.py "$(DATA)" $*

# What follows a bar must be there, however old: a finished run is not trained again.
$(RUNS)/student/model.safetensors: | $(RUNS)/student-labels/model.safetensors $(RUNS)/expert/model.safetensors
$(RUNS)/student-again/model.safetensors: | $(RUNS)/student/model.safetensors
$(RUNS)/student-fair-plain/model.safetensors: | $(RUNS)/student-standardised/model.safetensors
$(RUNS)/student-fair/model.safetensors: \
	| $(RUNS)/student-standardised/model.safetensors $(RUNS)/expert-lite2-again/model.safetensors
$(RUNS)/student-standardised/model.safetensors: \
	| $(RUNS)/student-gently/model.safetensors $(RUNS)/expert-average/model.safetensors
$(RUNS)/student-gently/model.safetensors: \
	| $(RUNS)/student-again/model.safetensors $(RUNS)/expert-average/model.safetensors
$(RUNS)/malunet-fair/model.safetensors: \
	| $(RUNS)/malunet-gently/model.safetensors $(RUNS)/expert-lite2-again/model.safetensors
$(RUNS)/malunet-gently/model.safetensors: \
	| $(RUNS)/malunet-again/model.safetensors $(RUNS)/expert-average/model.safetensors
$(RUNS)/malunet-again/model.safetensors: | $(RUNS)/malunet/model.safetensors
$(RUNS)/malunet/model.safetensors: \
	| $(RUNS)/malunet-labels/model.safetensors $(RUNS)/expert/model.safetensors
$(RUNS)/expert-again/model.safetensors: | $(RUNS)/expert/model.safetensors
$(RUNS)/expert-average/model.safetensors: | $(RUNS)/expert-again/model.safetensors
	$(BIN)/python training/average.py $(RUNS)/expert $(RUNS)/expert-again $(@D)
$(RUNS)/expert-gently/model.safetensors: | $(RUNS)/expert-average/model.safetensors
$(RUNS)/expert-lite2/model.safetensors: | $(IMAGENET) $(RUNS)/expert-gently/model.safetensors
$(RUNS)/expert-lite2-gently/model.safetensors: \
	| $(RUNS)/expert-lite2/model.safetensors $(RUNS)/expert-gently/model.safetensors
$(RUNS)/expert-lite2-again/model.safetensors: | $(RUNS)/expert-lite2-gently/model.safetensors
$(RUNS)/expert/model.safetensors: | $(IMAGENET)
$(RUNS)/%/model.safetensors: | training/recipes/%.toml $(DATASET)
	$(BIN)/microaunet train training/recipes/$*.toml --out $(@D)

$(DATASET): | $(INSTALLED)
	$(BIN)/python training/pack.py "$(DATA)"

$(IMAGENET) &: | $(INSTALLED)
	$(UV_INSTALL) -e ".[dev,training]"
	$(BIN)/python training/imagenet_expert.py

# All rows start from the first, three are taught by the second, others by bundled models.
table: $(RUNS)/student-labels/model.safetensors $(RUNS)/malunet-labels/model.safetensors
	$(BIN)/python training/table.py run
	$(BIN)/python training/table.py score "$(DATA)"

# uv takes seconds where pip takes minutes; it is told of local wheels where pip knows any.
$(INSTALLED): pyproject.toml constraints.txt scripts/system_packages.sh
	sh scripts/system_packages.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV_INSTALL) -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) $(OUT)
